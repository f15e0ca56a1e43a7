import json
import logging
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray.exceptions import GetTimeoutError

from falcon_ray.errors import TrialFailedError
from falcon_ray.runtime.request_records import RequestFolder, RequestRecords, write_whole
from falcon_ray.space.configuration import Configuration, FloatArray
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.recipe import TrialRecipe
from falcon_ray.trial.requests import RequestLog
from tests.fakes import FakeBackend, FakeLoadGenerator, FakeMonitor, VirtualClock

CONFIGURATION = Configuration({"batch_size": 8, "dtype": "float32"})


def log(intended_s: list[float], *, sent_after: float = 0.0, done_after: float = 0.5) -> RequestLog:
    due = np.array(intended_s)
    return RequestLog(
        intended_s=due,
        sent_s=due + sent_after,
        done_s=due + sent_after + done_after,
        ok=np.arange(due.size) % 2 == 0,
    )


def two_attempts() -> RequestRecords:
    """One that ended in its warm-up, and one that went on to an offered rate."""
    records, heard = RequestRecords(), list[str]()
    phase = records.watching(heard.append)
    phase("deploying")
    records.add("warm_up", None, log([100.0, 101.0]))
    phase("deploying")
    phase("warming up")
    records.add("warm_up", None, log([110.0]))
    records.add("saturation", None, RequestLog.empty())
    records.add("offered", 40.0, log([120.0, 120.025], sent_after=0.01))
    assert heard == ["deploying", "deploying", "warming up"]
    return records


def test_times_count_from_the_first_request_and_attempts_are_kept_apart() -> None:
    table = two_attempts().table(CONFIGURATION)
    assert table.column("phase").to_pylist() == ["warm_up"] * 3 + ["offered"] * 2
    assert table.column("attempt").to_pylist() == [1, 1, 2, 2, 2]
    assert table.column("offered_rps").to_pylist() == [None, None, None, 40.0, 40.0]
    assert table.column("intended_s").to_pylist() == pytest.approx([0, 1, 10, 20, 20.025])
    assert table.column("sent_s").to_pylist() == pytest.approx([0, 1, 10, 20.01, 20.035])
    assert table.column("done_s").to_pylist() == pytest.approx([0.5, 1.5, 10.5, 20.51, 20.535])
    assert table.column("ok").to_pylist() == [True, False, True, True, False]


def test_a_file_says_its_configuration_and_units(tmp_path: Path) -> None:
    path = tmp_path / "trial-1.parquet"
    path.write_bytes(two_attempts().parquet(CONFIGURATION))
    metadata = pq.read_schema(path).metadata
    assert json.loads(metadata[b"configuration"]) == dict(CONFIGURATION)
    assert json.loads(metadata[b"units"]).keys() == set(pq.read_schema(path).names)
    assert metadata[b"n_requests"] == b"5"


def test_of_too_many_requests_a_random_part_is_kept_in_order() -> None:
    records = RequestRecords()
    records.add("saturation", None, log([float(i) for i in range(1000)]))
    table = records.table(CONFIGURATION, most=100)
    due_s: FloatArray = table.column("intended_s").to_numpy()
    assert due_s.size == 100
    assert (np.diff(due_s) > 0).all()
    # The mean of 100 of 0 ... 999 is 499.5 with an sd of 289 / 10: four of them either way.
    assert 384 < due_s.mean() < 615
    assert table.schema.metadata[b"n_requests"] == b"1000"


def test_a_request_takes_less_than_18_bytes_of_the_file() -> None:
    rng = np.random.default_rng(1)
    due = np.sort(rng.random(100_000)) * 60
    records = RequestRecords()
    records.add(
        "saturation",
        None,
        RequestLog(
            intended_s=due,
            sent_s=due + rng.random(due.size) * 1e-3,
            done_s=due + 0.01 + rng.random(due.size) * 1e-3,
            ok=np.ones(due.size, np.bool_),
        ),
    )
    size = len(records.parquet(CONFIGURATION))
    assert size < 18 * due.size


def test_a_file_is_written_whole_and_over_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "requests" / "trial-1.parquet"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert [each.name for each in path.parent.iterdir()] == ["trial-1.parquet"]


def test_what_cannot_be_written_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "requests" / "trial-1.parquet"
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="trial-1"):
        write_whole(path, b"data")
    assert [each.name for each in path.parent.iterdir()] == ["trial-1.parquet"]


def test_the_requests_of_a_trial_are_one_file_in_the_run_directory(tmp_path: Path) -> None:
    folder = RequestFolder(tmp_path, write_whole)
    with folder.recording("trial-3", CONFIGURATION) as records:
        records.add("saturation", None, log([1.0, 2.0]))
    path = tmp_path / "requests" / "trial-3.parquet"
    assert pq.read_table(path).column("intended_s").to_pylist() == [0, 1]


def test_a_trial_without_a_request_leaves_no_file(tmp_path: Path) -> None:
    with RequestFolder(tmp_path, write_whole).recording("trial-1", CONFIGURATION):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk full"), GetTimeoutError("no answer")])
def test_a_failure_to_write_is_a_warning_and_no_lost_trial(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> NoReturn:
        raise error

    with (
        caplog.at_level(logging.WARNING),
        RequestFolder(tmp_path, broken).recording("trial-1", CONFIGURATION) as records,
    ):
        records.add("saturation", None, log([1.0]))
    assert f"the requests of trial-1 were not kept in {tmp_path}" in caplog.text
    assert str(error) in caplog.text


def test_every_attempt_of_the_recipe_is_one_of_the_records() -> None:
    clock = VirtualClock()
    records = RequestRecords()
    TrialRecipe(
        backend=FakeBackend(clock, [TrialFailedError("the node was lost")]),
        load=FakeLoadGenerator(clock),
        model_load=None,
        monitor=FakeMonitor(),
        plan=MeasurementPlan(max_attempts=3),
        clock=clock,
        on_phase=records.watching(lambda _: records.add("warm_up", None, log([clock()]))),
    ).run(CONFIGURATION)
    assert records.table(CONFIGURATION).column("attempt").to_pylist() == [1, 2, 3]
