from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from falcon_ray.errors import InputError
from falcon_ray.report.record import Role
from falcon_ray.report.result import SearchResult
from tests.unit.report.searches import (
    HEADER,
    batch,
    infeasible,
    measured,
    measurement,
    search,
)

TRIALS = [measured(batch(1), measurement(100.0)), measured(batch(16), measurement(140.0))]
BROKEN = (Role.BEST, infeasible(batch(16), "out of memory"))


def test_what_was_not_reproduced_is_not_exported(tmp_path: Path) -> None:
    result = SearchResult(tmp_path, search(TRIALS, [BROKEN]))
    assert not result.is_deployable
    path = tmp_path / "serve.yaml"
    with pytest.raises(InputError, match="nothing was confirmed that could be exported"):
        result.export(path)
    assert not path.exists()


def test_a_confirmed_baseline_is_deployable_in_its_place(tmp_path: Path) -> None:
    result = SearchResult(tmp_path, search(TRIALS, [BROKEN, (Role.BASELINE, TRIALS[0])]))
    assert result.is_deployable
    assert result.best is not None
    assert result.best.configuration == batch(1)


SERVE = {
    "name": "tiny",
    "import_path": "falcon_ray.runtime.torch_app:build",
    "arguments": {"model": "zoo:tiny", "seed": 7},
}
EMULATED = replace(HEADER, emulated=True, settings={"serve": SERVE})


def test_an_emulated_search_is_not_exported_unless_that_is_allowed(tmp_path: Path) -> None:
    result = SearchResult(tmp_path, search(TRIALS, header=EMULATED))
    path = tmp_path / "serve.yaml"
    with pytest.raises(InputError, match=r"search s1 ran on emulated GPUs.*--allow-emulated"):
        result.export(path)
    assert not path.exists()
    assert result.is_deployable
    assert not result.exports_itself


def test_an_emulated_export_deploys_the_real_model_and_says_what_it_is(tmp_path: Path) -> None:
    result = SearchResult(tmp_path, search(TRIALS, header=EMULATED))
    text = result.export(tmp_path / "serve.yaml", allow_emulated=True).read_text("utf-8")
    (application,) = yaml.safe_load(text)["applications"]
    assert application["import_path"] == "falcon_ray.runtime.torch_app:build"
    assert application["args"]["model"] == "zoo:tiny"
    comments = " ".join(text.replace("\n#", " ").split())
    assert "EMULATED: no GPU did any work in this search." in comments
    assert "The numbers below are predicted, not measured." in comments
    assert "Predicted, by emulation: 140 requests/s for 0.05 USD/h on c4" in comments
    assert "Measured:" not in text


def test_a_measured_search_exports_itself(tmp_path: Path) -> None:
    measured_one = replace(EMULATED, emulated=False)
    result = SearchResult(tmp_path, search(TRIALS, header=measured_one))
    assert result.exports_itself
    text = result.export(tmp_path / "serve.yaml").read_text("utf-8")
    assert "emulat" not in text.lower()
