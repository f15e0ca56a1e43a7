import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.operators.operator import Decomposition, Family, Operator
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Measurement, Observation, TrialStatus, TrialTimes
from falcon_ray.studies.search.cpu_table import (
    model_tables,
    variance_between_repeats,
    write_tables,
)
from falcon_ray.studies.search.cpu_tasks import cpu_tasks
from falcon_ray.studies.search.cpu_trials import PlannedTrial, RecordedTrial

SMALL = {
    "cpu_cores": 1,
    "batch_size": 1,
    "batch_wait_ms": 0,
    "dtype": "float32",
    "replicas": 1,
}
LARGE = {**SMALL, "batch_size": 8, "replicas": 2}


def trial(
    values: Mapping[str, str | int],
    rps: float | None,
    *,
    repeat: int = 1,
    half_width: float = 0.0,
    deploy_s: float = 2.0,
    status: TrialStatus = TrialStatus.INFEASIBLE,
) -> RecordedTrial:
    """A trial of model "m"; `half_width` is of its own interval, in logs."""
    configuration = Configuration(values)
    measurement = None
    if rps is not None:
        measurement = Measurement(
            saturation_rps=rps,
            saturation_rps_ci_low=rps * math.exp(-half_width),
            saturation_rps_ci_high=rps * math.exp(half_width),
            service_time_ms=1e3 / rps,
        )
    return RecordedTrial(
        trial=PlannedTrial("m", configuration, repeat),
        observation=Observation(
            configuration=configuration,
            status=status if measurement is None else TrialStatus.MEASURED,
            measurement=measurement,
            reason="out of memory" if measurement is None else "",
            times=TrialTimes(deploy_s=deploy_s),
        ),
        usd_per_hour=0.1 * configuration.count("replicas", 1),
        wall_s=8.0,
    )


def decomposed(model: str) -> Decomposition:
    one = Operator(name="linear", family=Family.LINEAR, dims=(1, 64, 64), flops=8192.0)
    return Decomposition(
        model=model,
        batch_sizes=(1, 2),
        low=(one,),
        high=(one,),
        parameter_bytes=16384.0,
        activation_bytes=(256.0, 256.0),
    )


def only_row(*trials: RecordedTrial) -> dict[str, object]:
    (row,) = model_tables(trials)["m"].to_pylist()
    return row


def test_a_row_holds_the_median_and_the_range_of_its_repeats() -> None:
    row = only_row(
        trial(SMALL, 100.0, deploy_s=2.0),
        trial(SMALL, 110.0, repeat=2, deploy_s=4.0),
        trial(SMALL, 90.0, repeat=3, deploy_s=3.0),
    )
    assert row["saturation_rps"] == 100.0
    assert (row["saturation_rps_min"], row["saturation_rps_max"]) == (90.0, 110.0)
    assert row["service_time_ms"] == 10.0
    assert (row["n_repeats"], row["deploy_s"], row["usd_per_hour"]) == (3, 3.0, 0.1)


def test_repeats_that_agree_leave_the_interval_of_one_trial_over_their_root() -> None:
    row = only_row(
        trial(SMALL, 100.0, half_width=0.02), trial(SMALL, 100.0, repeat=2, half_width=0.02)
    )
    assert row["saturation_rps_ci_high"] == pytest.approx(100 * math.exp(0.02 / math.sqrt(2)))
    assert row["saturation_rps_ci_low"] == pytest.approx(100 * math.exp(-0.02 / math.sqrt(2)))


def test_repeats_that_differ_widen_every_interval_of_the_model() -> None:
    apart = math.exp(0.2)
    rows = model_tables(
        [
            *(trial(SMALL, 100.0), trial(SMALL, 100.0, repeat=2)),
            *(trial(LARGE, 100.0), trial(LARGE, 100.0 * apart, repeat=2)),
        ]
    )["m"].to_pylist()
    # Squares of 0 and 2 x 0.1^2 over two degrees of freedom: 0.01, and over two repeats 0.005.
    factor = math.exp(1.96 * math.sqrt(0.005))
    assert rows[0]["saturation_rps_ci_high"] == pytest.approx(100 * factor)


def test_single_repeats_say_nothing_of_the_variance_between_repeats() -> None:
    assert variance_between_repeats([[1.0], [2.0]]) == 0
    assert variance_between_repeats([[1.0], [2.0, 4.0]]) == 2.0  # (1 + 1) / 1


def test_a_configuration_that_never_ran_is_a_row_with_its_reason() -> None:
    row = only_row(trial(SMALL, None), trial(SMALL, None, repeat=2))
    assert (row["status"], row["reason"]) == ("infeasible", "out of memory")
    assert row["saturation_rps"] is None


def test_a_configuration_that_ran_in_half_of_its_repeats_counts_as_measured() -> None:
    row = only_row(trial(SMALL, None), trial(SMALL, 100.0, repeat=2))
    assert (row["status"], row["n_repeats"]) == ("measured", 1)


def test_trials_that_the_infrastructure_failed_are_left_out() -> None:
    lost = trial(SMALL, None, status=TrialStatus.FAILED)
    assert only_row(lost, trial(SMALL, 100.0))["n_repeats"] == 1
    with pytest.raises(InputError, match="no trial has ended yet"):
        model_tables([lost])


def test_a_written_table_is_read_back_as_a_task(tmp_path: Path) -> None:
    write_tables(
        [trial(SMALL, 100.0), trial(LARGE, 300.0), trial({**LARGE, "batch_size": 16}, None)],
        tmp_path,
        operators=[decomposed("m")],
    )
    (task,) = cpu_tasks(tmp_path, with_prior=False)
    assert (task.name, task.model, task.family) == ("cpu|m", "m", "m")
    # 100 requests/s * 3600 s/h / 0.1 USD/h, and 300 / 0.2; out of memory scores nothing.
    assert dict(zip((1, 8, 16), task.scores, strict=True)) == pytest.approx(
        {1: 3.6e6, 8: 5.4e6, 16: 0.0}
    )
    assert task.observations[2].reason == "out of memory"
    assert np.array_equal(task.usd_per_hour, [0.1, 0.2, 0.2])


def test_a_directory_without_tables_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run scripts/measure_cpu_tables"):
        cpu_tasks(tmp_path)


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"model": ["m"]}), tmp_path / "cpu_m.parquet")
    with pytest.raises(InputError, match="lacks cpu_cores"):
        cpu_tasks(tmp_path, with_prior=False)
