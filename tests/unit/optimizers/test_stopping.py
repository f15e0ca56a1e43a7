import pytest

from falcon_ray.optimizers.stopping import Outlook, why_stop


def outlook(
    *, expected_gain: float = 0.2, probability_of_better: float = 0.5, n_measured: int = 3
) -> Outlook:
    return Outlook(
        expected_gain=expected_gain,
        probability_of_better=probability_of_better,
        n_measured=n_measured,
    )


def test_a_search_with_something_to_gain_goes_on() -> None:
    assert why_stop(outlook()) == ""


@pytest.mark.parametrize(("expected_gain", "stops"), [(0.0099, True), (0.01, False)])
def test_it_stops_when_one_more_trial_gains_less_than_one_per_cent(
    expected_gain: float, *, stops: bool
) -> None:
    words = "one more trial is expected to gain less than 1 %"
    assert why_stop(outlook(expected_gain=expected_gain)) == (words if stops else "")


@pytest.mark.parametrize(("probability", "stops"), [(0.099, True), (0.10, False)])
def test_it_stops_when_a_clearly_better_one_is_unlikely(probability: float, *, stops: bool) -> None:
    words = "that anything untried is more than 5 % better has a probability below 10 %"
    assert why_stop(outlook(probability_of_better=probability)) == (words if stops else "")


def test_the_expected_gain_is_named_first_where_both_speak_for_the_end() -> None:
    why = why_stop(outlook(expected_gain=0.004, probability_of_better=0.07))
    assert why == "one more trial is expected to gain less than 1 %"


@pytest.mark.parametrize(("n_measured", "stops"), [(0, False), (2, False), (3, True)])
def test_the_rule_waits_for_three_trials_with_a_score(n_measured: int, *, stops: bool) -> None:
    nothing_left = outlook(expected_gain=0.0, probability_of_better=0.0, n_measured=n_measured)
    assert bool(why_stop(nothing_left)) is stops
