"""A study leaves every run, a table and a picture."""

from pathlib import Path

import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.studies.search import tables
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.table_study import run_table_study
from tests.unit.optimizers.recorded import by_batch

TASKS = [
    by_batch([1.0, 2.0, 4.0, None], name="a", model="a", family="a"),
    by_batch([1.0, 4.0, 2.0, None], name="b", model="b", family="b"),
]


def test_a_study_writes_what_it_says(tmp_path: Path) -> None:
    options = SearchStudyOptions(
        methods=("random", "popularity"), n_seeds=2, budget=4, n_jobs=1, output_dir=tmp_path
    )
    study = run_table_study("small", TASKS, options)
    assert list(study.summaries) == ["random", "popularity"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "small.parquet"), study.runs)
    text = (tmp_path / "small.md").read_text(encoding="utf-8")
    assert "2 tasks of 2 models in 2 families; budget 4, batches of 1, noise 0%" in text
    assert "| random | 4 |" in text
    assert "| popularity | 2 |" in text
    assert [each.value for each in study.figures()] == [
        study.summaries["random"].mean.value,
        study.summaries["popularity"].mean.value,
    ]
    pictured = (tmp_path / "small.png").exists()
    assert study.notes[-1].startswith("picture: " if pictured else "no picture: ")


def test_tables_must_be_named() -> None:
    with pytest.raises(InputError, match="--tables PATH"):
        tables.figures(SearchStudyOptions())
