from dataclasses import replace

import pytest

from falcon_ray.errors import InfeasibleCause
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation, TrialStatus, TrialTimes
from falcon_ray.studies.measurement.fault_table import Expected, FaultOutcome, FaultRow

OUT_OF_MEMORY = Observation(
    configuration=Configuration({"batch_size": 8}),
    status=TrialStatus.INFEASIBLE,
    cause=InfeasibleCause.MEMORY,
    reason="out of memory (cannot allocate 4 GiB)",
    times=TrialTimes(deploy_s=1.5, warm_up_s=0.25, measure_s=0.5, teardown_s=9.0),
)
EXPECTED = Expected(
    status=TrialStatus.INFEASIBLE,
    cause=InfeasibleCause.MEMORY,
    says=r"out of memory .*4 GiB",
    within_s=2.5,
)


def test_an_observation_as_expected_does_not_differ() -> None:
    assert EXPECTED.differs(OUT_OF_MEMORY) == ""


@pytest.mark.parametrize(
    ("expected", "how"),
    [
        (replace(EXPECTED, status=TrialStatus.FAILED), "infeasible (memory)"),
        (replace(EXPECTED, cause=InfeasibleCause.TIMEOUT), "infeasible (memory)"),
        (replace(EXPECTED, says="node"), "does not say 'node'"),
        (replace(EXPECTED, attempts=3), "1 attempts, not 3"),
        (replace(EXPECTED, within_s=2.0), "took 2.2 s"),  # 1.5 + 0.25 + 0.5 = 2.25, no removal
    ],
)
def test_whatever_differs_is_said_together_with_the_reason(expected: Expected, how: str) -> None:
    assert expected.differs(OUT_OF_MEMORY) == f"{how}: out of memory (cannot allocate 4 GiB)"


def _outcome(wrong: str = "", *leaks: str, wall_s: float = 1.0) -> FaultOutcome:
    return FaultOutcome(wrong=wrong, leaks=leaks, wall_s=wall_s)


def test_a_line_counts_right_classes_and_tells_what_was_wrong_and_left() -> None:
    row = FaultRow(
        name="constructor exits",
        expected="infeasible (other)",
        outcomes=(
            _outcome(wall_s=3.0),
            _outcome("failed (other): node lost", wall_s=9.0),
            _outcome("", "apps: trial", "processes: ray::Old 7", wall_s=4.0),
        ),
        next_trial=_outcome(),
    )
    figure = row.figure()
    assert (figure.value, figure.unit, figure.at_least, figure.is_met) == (2, "of 3", 3, False)
    assert (row.n_wrong, row.n_leaks) == (1, 2)
    assert figure.note == (
        "infeasible (other); 2 leaks; median 4.0 s; failed (other): node lost; apps: trial; "
        "processes: ray::Old 7"
    )


def test_a_next_trial_that_is_not_served_is_wrong_and_no_case_of_the_fault() -> None:
    row = FaultRow(
        name="x", expected="failed", outcomes=(_outcome(),), next_trial=_outcome("not served")
    )
    assert (row.n_wrong, row.figure().value) == (1, 1)
    assert row.figure().note.endswith("not served")


def test_a_fault_that_cannot_be_made_says_why_and_has_no_goal() -> None:
    figure = FaultRow(name="x", expected="failed", not_here="no control groups").figure()
    assert figure.is_met is None
    assert figure.note == "not made: no control groups"
