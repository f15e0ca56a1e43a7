from dataclasses import replace

from falcon_ray.report.record import TrialRecord
from falcon_ray.report.sensitivity import price_sensitivity
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Observation
from tests.unit.report.searches import (
    PRICING,
    batch,
    cpu_instance,
    gpu_instance,
    infeasible,
    measured,
    measurement,
    search,
)

T4 = Configuration({"gpu_type": "T4", "batch_size": 8})
L4 = Configuration({"gpu_type": "L4", "batch_size": 8})
TWO_TYPES = Pricing((gpu_instance("t", "T4", 0.5), gpu_instance("l", "L4", 0.8)))


def trials(*observations: Observation) -> tuple[TrialRecord, ...]:
    return search(observations).trials


def test_a_price_that_moves_can_change_the_winner() -> None:
    """T4 100 / 0.5 = 200, L4 170 / 0.8 = 212.5 requests/s per USD/h.

    T4 at 0.35: 286 > 212.5, at 0.65: 154; L4 at 0.56: 304, at 1.04: 163 < 200.
    """
    found = price_sensitivity(
        trials(measured(T4, measurement(100.0)), measured(L4, measurement(170.0))),
        Objective(),
        TWO_TYPES,
    )
    assert [(m.instance_type, m.factor, m.winner, m.changes_winner) for m in found.moves] == [
        ("t", 0.7, T4, True),
        ("t", 1.3, L4, False),
        ("l", 0.7, L4, False),
        ("l", 1.3, T4, True),
    ]
    assert found.sentence == (
        "The winner depends on prices: with t 30 % cheaper it is gpu_type=T4 batch_size=8; "
        "with l 30 % dearer it is gpu_type=T4 batch_size=8."
    )


def test_a_clear_winner_stays() -> None:
    found = price_sensitivity(
        trials(measured(T4, measurement(100.0)), measured(L4, measurement(900.0))),
        Objective(),
        TWO_TYPES,
    )
    assert (len(found.moves), found.changes) == (4, ())
    assert found.sentence.startswith("The winner stays the same")


def test_one_instance_type_scales_all_scores_alike() -> None:
    """The L4 holds no trial that counts, so only the T4's price matters."""
    for pricing, tried in [
        (PRICING, trials(measured(batch(1), measurement(100.0)))),
        (TWO_TYPES, trials(measured(T4, measurement(100.0)), infeasible(L4))),
    ]:
        found = price_sensitivity(tried, Objective(), pricing)
        assert found.moves == ()
        assert "its price scales all scores alike" in found.sentence


def test_a_type_that_would_host_a_trial_if_it_were_cheaper_takes_part() -> None:
    """One core costs 0.20 / 4 = 0.050 on `a`, 0.24 / 4 = 0.060 on `b`, 0.042 at 70 %."""
    pricing = Pricing((cpu_instance("a", 0.20), cpu_instance("b", 0.24)))
    found = price_sensitivity(trials(measured(batch(1), measurement(100.0))), Objective(), pricing)
    assert [(move.instance_type, move.factor) for move in found.moves] == [
        ("a", 0.7),
        ("a", 1.3),
        ("b", 0.7),
    ]


def test_nothing_moves_without_a_winner() -> None:
    assert price_sensitivity(trials(infeasible(T4)), Objective(), TWO_TYPES).moves == ()


def test_a_trial_that_was_cut_short_counts_only_where_it_wins() -> None:
    """T4 100 / 0.5 = 200; L4 30 / 0.8 = 37.5 at least, and 30 / 0.56 = 54 at 70 %."""
    cut = replace(measurement(30.0), cut_short="it cannot win")
    found = price_sensitivity(
        trials(measured(T4, measurement(100.0)), measured(L4, cut)), Objective(), TWO_TYPES
    )
    assert (found.moves, found.n_cut_short) == ((), 1)


def test_a_trial_that_was_cut_short_and_wins_is_a_winner() -> None:
    """L4 150 / 0.8 = 187.5 < T4 100 / 0.5 = 200, and 150 / 0.56 = 268 at 70 %."""
    cut = replace(measurement(150.0), cut_short="it cannot win")
    found = price_sensitivity(
        trials(measured(T4, measurement(100.0)), measured(L4, cut)), Objective(), TWO_TYPES
    )
    assert (found.n_cut_short, [each.winner for each in found.changes if each.factor < 1]) == (
        0,
        [L4],
    )
