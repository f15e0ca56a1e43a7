"""What the table of faults expects, and what it comes to; no fault is made."""

import pytest

from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.studies.measurement.fault_cases import CASES, FaultCase, NotHereError
from falcon_ray.studies.measurement.fault_table import FaultOutcome, FaultRow
from falcon_ray.studies.measurement.faults import made, totals


def _outcome(wrong: str = "") -> FaultOutcome:
    return FaultOutcome(wrong=wrong, leaks=(), wall_s=1.0)


def test_what_was_made_counts_though_the_fault_cannot_be_made_again() -> None:
    left = [_outcome("failed (other): lost"), _outcome()]

    def make_once() -> FaultOutcome:
        if not left:
            raise NotHereError("no replica was added in time")
        return left.pop()

    outcomes, not_here = made(make_once, repeat=3)
    row = FaultRow(name="x", expected="measured", outcomes=outcomes, not_here=not_here)
    figure = row.figure()
    assert (figure.value, figure.unit, row.n_wrong) == (1, "of 2", 1)
    assert "then not made: no replica was added in time" in figure.note
    missing = totals([row, FaultRow(name="y", expected="failed", outcomes=(_outcome(),))])[0]
    assert (missing.value, missing.note) == (1, "of 2: x")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_of_ours_is_never_what_a_case_expects(case: FaultCase) -> None:
    if case.expected.status is not TrialStatus.MEASURED:
        ours = Observation(
            configuration=Configuration({"batch_size": 8}),
            status=case.expected.status,
            cause=case.expected.cause,
            attempts=case.expected.attempts,
            reason="unexpected KeyError: 'rows'",
        )
        assert "does not say" in case.expected.differs(ours)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a forward hangs from the first request on", "no request was answered in 4 s of warm-up"),
        ("a forward hangs while it is measured", "no request was answered for 10 s"),
        (
            "a forward hangs while it is measured",
            "a request was not answered for 10 s, where half of all take at most 2 ms",
        ),
        (
            "the model ends its process under traffic, every time",
            "its process died in each of 3 attempts; a replica died during the trial: x",
        ),
        ("a node is killed while measuring", "a replica died during the trial: x"),
        ("a load driver is killed", "collecting the load failed: ActorDiedError: The actor died"),
        ("a load driver is killed", "asking the drivers failed: ActorUnavailableError: x"),
    ],
)
def test_what_trials_say_of_a_fault_is_what_its_case_expects(name: str, reason: str) -> None:
    (case,) = (each for each in CASES if each.name == name)
    observation = Observation(
        configuration=Configuration({"batch_size": 8}),
        status=case.expected.status,
        cause=case.expected.cause,
        attempts=case.expected.attempts,
        reason=reason,
    )
    assert case.expected.differs(observation) == ""
