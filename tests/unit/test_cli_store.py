import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from falcon_ray.cli.store import store
from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile.files import append_part, read_profile
from tests.unit.knowledge.profile_rows import SOURCES, operators


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(store, [str(each) for each in arguments])


def shown(*arguments: str | Path) -> dict[str, Any]:
    result = run("show", "--format", "json", *arguments)
    assert result.exit_code == 0, result.exception
    return json.loads(result.output)


def refused(*arguments: str | Path) -> str:
    error = run(*arguments).exception
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    return str(error)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A profile of two operators."""
    append_part(tmp_path / "lab", operators({}, {"device": "L4", "dtype": "bfloat16"}), SOURCES)
    return tmp_path / "lab"


def test_show_says_what_is_known_and_where_it_comes_from(lab: Path) -> None:
    summary = shown("--store", lab)
    assert summary["tables"]["operators"] == {
        "rows": 2,
        "devices": ["L4", "T4"],
        "dtypes": ["bfloat16", "float32"],
    }
    assert summary["sources"]["lab"]["licence"] == "MIT"
    assert summary["version"] == read_profile(lab).version
    text = run("show", "--store", lab).output
    for word in (str(lab), "L4, T4", "bfloat16, float32", "https://lab.test", "MIT"):
        assert word in text


def test_show_of_a_default_store_that_nobody_made_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FALCON_RAY_PROFILE", str(tmp_path / "none"))
    result = run("show")
    assert result.exit_code == 0
    assert "falcon-ray profile" in result.output


def test_show_of_a_named_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no profile at" in refused("show", "--store", tmp_path / "none")
    assert "not both" in refused("show", "--store", tmp_path, "--packaged")


def test_export_writes_a_copy_and_overwrites_nothing(lab: Path, tmp_path: Path) -> None:
    assert run("export", tmp_path / "copy", "--store", lab).exit_code == 0
    assert read_profile(tmp_path / "copy").version == read_profile(lab).version
    assert "already" in refused("export", tmp_path / "copy", "--store", lab)


def test_import_adds_once(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALCON_RAY_PROFILE", str(tmp_path / "mine"))
    for _ in range(2):
        assert run("import", lab).exit_code == 0
    assert read_profile(tmp_path / "mine").operators.equals(read_profile(lab).operators)


def test_import_of_several_adds_nothing_when_one_is_missing(lab: Path, tmp_path: Path) -> None:
    message = refused("import", lab, tmp_path / "none", "--store", tmp_path / "mine")
    assert "no profile at" in message
    assert read_profile(tmp_path / "mine", missing_ok=True).is_empty


def test_merge_brings_profiles_together_in_a_new_place(lab: Path, tmp_path: Path) -> None:
    append_part(tmp_path / "other", operators({"n": 5, "latency_us": 101.0}), SOURCES)
    assert run("merge", lab, tmp_path / "other", lab, "-o", tmp_path / "both").exit_code == 0
    n = read_profile(tmp_path / "both").operators.column("n").to_numpy()
    assert sorted(n.tolist()) == [10, 15]  # 10 + 5 on the T4, 10 on the L4
    assert "already" in refused("merge", lab, "-o", tmp_path / "both")
