from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from falcon_ray.errors import InputError
from falcon_ray.report.export import TORCH_APP, serve_config, write_export
from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.report.record import Role
from tests.unit.report.searches import batch, infeasible, measured, measurement, search

B1 = measured(batch(1), measurement(100.0))
B16 = measured(batch(16), measurement(140.0))
ARGUMENTS = {
    "model": "zoo:tiny",
    "configuration": {"batch_size": 16, "dtype": "float32", "batch_wait_ms": 0.00001},
    "seed": 7,
    "note": "yes: no # on\n1e3",
}


def recommended(*, confirmed: bool = True) -> Recommendation:
    confirmations = [(Role.BEST, B16), (Role.BASELINE, B1)]
    found = recommend(search([B1, B16], confirmations if confirmed else []))
    assert isinstance(found, Recommendation)
    return found


def exported(recommendation: Recommendation, arguments: dict[str, object] = ARGUMENTS) -> str:
    return serve_config(
        recommendation,
        name="tiny",
        import_path=TORCH_APP,
        arguments=arguments,
        search_id="s1",
        request_command="curl -d '{}' http://127.0.0.1:8000/",
    )


def test_the_config_names_one_application_with_its_arguments() -> None:
    assert yaml.safe_load(exported(recommended())) == {
        "http_options": {"host": "127.0.0.1", "port": 8000},
        "applications": [
            {
                "name": "tiny",
                "route_prefix": "/",
                "import_path": "falcon_ray.runtime.torch_app:build",
                "args": ARGUMENTS,
            }
        ],
    }


def test_the_comments_say_what_was_found_and_how_to_use_it() -> None:
    comments = [line for line in exported(recommended()).splitlines() if line.startswith("#")]
    text = " ".join(" ".join(line.removeprefix("#") for line in comments).split())
    assert "search s1." in text
    assert "batch_size=16 serves 10,100,000 requests per dollar, 40 % more" in text
    assert "Measured: 140 requests/s for 0.05 USD/h on c4 (confirmed)," in text
    assert "serve run serve.yaml" in text
    assert "serve deploy serve.yaml" in text
    assert "curl -d '{}' http://127.0.0.1:8000/" in text


def test_the_comments_say_where_the_load_entered() -> None:
    over_http = measured(batch(16), replace(measurement(140.0), load_path="http"))
    found = recommend(search([over_http], [(Role.BEST, over_http)]))
    assert isinstance(found, Recommendation)
    assert "# over HTTP.\n" in exported(found)


def test_what_is_not_confirmed_is_exported_as_such() -> None:
    text = exported(recommended(confirmed=False))
    assert "(not confirmed)" in text
    assert yaml.safe_load(text)["applications"][0]["name"] == "tiny"


def test_text_with_line_breaks_stays_within_the_comments() -> None:
    broken = recommend(search([B1, B16], [(Role.BEST, infeasible(batch(16), "a\nb: [\n"))]))
    assert isinstance(broken, Recommendation)
    text = serve_config(
        broken,
        name="tiny",
        import_path=TORCH_APP,
        arguments={},
        search_id="s\n1: [",
        request_command="curl \\\n  http://127.0.0.1:8000/",
    )
    assert list(yaml.safe_load(text)) == ["http_options", "applications"]


def test_an_import_path_that_serve_cannot_follow_is_refused() -> None:
    for path in ("model.py", ":build", "module:"):
        with pytest.raises(InputError, match=r"must be package\.module:builder"):
            serve_config(recommended(), name="x", import_path=path, arguments={}, search_id="s1")


def test_an_argument_that_is_no_plain_value_is_refused() -> None:
    with pytest.raises(InputError, match="is no JSON value"):
        exported(recommended(), {"model": object()})


def test_the_export_is_a_file(tmp_path: Path) -> None:
    text = exported(recommended())
    write_export(tmp_path / "serve.yaml", text)
    assert (tmp_path / "serve.yaml").read_text("utf-8") == text
