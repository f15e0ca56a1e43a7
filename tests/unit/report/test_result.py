from pathlib import Path

import pytest

from falcon_ray.errors import InputError
from falcon_ray.report.record import Role
from falcon_ray.report.result import SearchResult
from tests.unit.report.searches import batch, infeasible, measured, measurement, search

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
