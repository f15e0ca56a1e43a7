from collections.abc import Mapping

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import Expert, ExpertMixture
from falcon_ray.optimizers.coordinates import Coordinates
from falcon_ray.optimizers.experts import (
    CONSTANT,
    LEAST_WEIGHT,
    Belief,
    Experts,
    log_value,
    metric_correlation,
)
from falcon_ray.optimizers.gaussian_process import Posterior
from falcon_ray.optimizers.history import History
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.unit.optimizers.synthetic_serving import (
    SPACE,
    WITH_SLO,
    WITHOUT_SLO,
    expert,
    failed,
    infeasible,
    measured,
    true_logs,
    true_mixture,
    usd_per_hour,
)

# Two candidates 2 length scales apart, where Matern-5/2 is 0.138661.
PAIR = ConfigurationSpace.of({"batch_wait_ms": [0, 10]})
BOTH = np.arange(2)
RATE = "saturation_rps"


def rate(candidate: int, log_rps: float, space: ConfigurationSpace = PAIR) -> Observation:
    return Observation(
        configuration=space.candidate(candidate),
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=float(np.exp(log_rps))),
    )


def learnt(
    experts: tuple[Expert, ...],
    *observations: Observation,
    prices: tuple[float, float] = (1.0, 1.0),
    pending: tuple[int, ...] = (),
) -> Experts:
    """Of the pair, without an SLO."""
    history = History(PAIR, WITHOUT_SLO, np.array(prices))
    for observation in observations:
        history.observe(observation)
    for index in pending:
        history.expect(index)
    mixture = ExpertMixture(experts=experts) if experts else None
    found = Experts(mixture, WITHOUT_SLO, history.usd_per_hour, Coordinates(PAIR))
    found.learn(history)
    return found


def flat(name: str, log_rps: float, weight: float = 1.0, **sds: float) -> Expert:
    return expert({RATE: np.full(2, log_rps)}, name=name, weight=weight, **sds)


def test_before_any_trial_weights_are_those_given_beside_a_tenth_for_the_constant() -> None:
    found = learnt((flat("roofline", 0.0, 3.0), flat("composition", 0.0, 1.0)))
    assert found.names == ("roofline", "composition", CONSTANT)
    # 0.9 shared by 3 : 1, and 0.1
    assert found.weights == pytest.approx([0.675, 0.225, 0.1])


def test_a_constant_that_was_given_is_the_only_one() -> None:
    found = learnt((flat("roofline", 0.0, 3.0), flat(CONSTANT, 0.0, 1.0)))
    assert found.names == ("roofline", CONSTANT)
    assert found.weights == pytest.approx([0.75, 0.25])


def test_one_observation_moves_the_weights_by_the_tempered_likelihood() -> None:
    found = learnt((flat("right", 0.0), flat(CONSTANT, 1.0)), rate(0, 0.0))
    # Both expect the variance 0.5^2 + 0.25^2 + 0.05^2 = 0.315. The log likelihoods differ by
    # (1^2 - 0^2) / (2 * 0.315) = 1.587302, half of which is 0.793651: odds of 2.211455 to 1.
    assert found.weights == pytest.approx([0.688614, 0.311386], abs=1e-5)


def test_a_surer_expert_gains_more_from_being_right() -> None:
    found = learnt(
        (flat("surer", 0.0, offset_sd=0.1, residual_sd=0.1), flat(CONSTANT, 0.0)), rate(0, 0.0)
    )
    # Variances 0.01 + 0.01 + 0.0025 = 0.0225 and 0.315: odds of (0.315 / 0.0225)^(1/4) = 14^(1/4)
    assert found.weights[0] / found.weights[1] == pytest.approx(14**0.25, rel=1e-5)


def test_weights_move_to_the_expert_that_is_right() -> None:
    truth = true_logs(SPACE, WITHOUT_SLO)
    wrong = {RATE: np.random.default_rng(0).permutation(truth[RATE])}
    mixture = ExpertMixture(
        experts=(expert(wrong, name="wrong", weight=9.0), expert(truth, name="right"))
    )
    history = History(SPACE, WITHOUT_SLO, usd_per_hour(SPACE))
    found = Experts(mixture, WITHOUT_SLO, history.usd_per_hour, Coordinates(SPACE))
    assert found.weights == pytest.approx([0.81, 0.09, 0.1])  # 0.9 shared by 9 : 1, and 0.1
    for row in (0, 40, 75, 119, 8, 61):
        history.observe(measured(SPACE.candidate(row), WITHOUT_SLO))
    found.learn(history)
    assert found.weights[1] > 0.9


def test_when_all_others_are_wrong_the_constant_takes_over() -> None:
    rng = np.random.default_rng(1)
    permuted = {RATE: rng.permutation(3 * true_logs(SPACE, WITHOUT_SLO)[RATE])}
    history = History(SPACE, WITHOUT_SLO, usd_per_hour(SPACE))
    mixture = ExpertMixture(experts=(expert(permuted, name="wrong"),))
    found = Experts(mixture, WITHOUT_SLO, history.usd_per_hour, Coordinates(SPACE))
    assert found.weights == pytest.approx([0.9, 0.1])
    for row in (0, 40, 75, 119):
        history.observe(measured(SPACE.candidate(row), WITHOUT_SLO))
    found.learn(history)
    assert found.weights[1] > 0.9


def test_trials_without_a_measurement_leave_the_weights() -> None:
    candidates = [PAIR.candidate(i) for i in range(2)]
    found = learnt(
        (flat("a", 0.0), flat("b", 5.0)), infeasible(candidates[0]), failed(candidates[1])
    )
    assert found.weights == pytest.approx([0.45, 0.45, 0.1])


def test_pending_trials_leave_weights_and_means_and_narrow_the_sd() -> None:
    experts = (flat("a", 0.0), flat("b", 1.0))
    without, believed = learnt(experts, rate(0, 0.3)), learnt(experts, rate(0, 0.3), pending=(1,))
    assert believed.weights.tolist() == without.weights.tolist()
    for one, other in zip(without.believe(BOTH), believed.believe(BOTH), strict=True):
        assert other.posterior.mean.tolist() == one.posterior.mean.tolist()
        assert other.posterior.sd[0, 1] < 0.2 * one.posterior.sd[0, 1]


def test_the_constant_expects_the_level_of_the_others_and_rates_as_prices() -> None:
    experts = (flat("a", 4.0, 3.0), flat("b", 8.0, 1.0))
    constant = learnt(experts, prices=(1.0, 9.0)).believe(BOTH)[-1]
    assert constant.name == CONSTANT
    # The others expect 0.75 * 4 + 0.25 * 8 = 5 on average; ln(1) and ln(9) are ln(3) away from
    # their mean.
    assert constant.posterior.mean[0] == pytest.approx([5 - np.log(3), 5 + np.log(3)])


def test_a_lone_constant_takes_the_level_that_was_observed() -> None:
    found = learnt((), rate(0, np.log(10)), prices=(1.0, 3.0))
    assert not found.is_informed
    assert found.names == (CONSTANT,)
    (belief,) = found.believe(BOTH)
    # One dollar an hour bought 10 requests/s, so three are expected to buy 30.
    assert np.exp(belief.posterior.mean[0]) == pytest.approx([10.0, 30.0])


def test_the_level_of_two_observations_is_their_mean() -> None:
    space = ConfigurationSpace.of({"batch_wait_ms": [0, 10, 20]})
    history = History(space, WITHOUT_SLO, np.ones(3))
    for candidate, log_rps in ((0, 1.0), (2, 3.0)):
        history.observe(rate(candidate, log_rps, space))
    found = Experts(None, WITHOUT_SLO, history.usd_per_hour, Coordinates(space))
    found.learn(history)
    (belief,) = found.believe(np.arange(3))
    # In the middle between them the deviations of -1 and +1 cancel: (1 + 3) / 2 is left.
    assert belief.posterior.mean[0, 1] == pytest.approx(2.0)


def test_an_informed_mixture_keeps_its_own_level() -> None:
    belief = learnt((flat("roofline", 0.0),), rate(0, 1.0)).believe(BOTH)[0]
    # The offset takes up a part: (0.25 + 0.0625 * 0.138661) / 0.315 = 0.821163
    assert belief.posterior.mean[0, 1] == pytest.approx(0.821163, abs=1e-5)


def test_experts_that_hardly_count_are_not_asked() -> None:
    found = learnt((flat("right", 0.0), flat("wrong", 9.0)), rate(0, 0.0))
    assert found.weights[1] < LEAST_WEIGHT
    assert "wrong" not in {belief.name for belief in found.believe(BOTH)}
    assert found.weights.sum() == pytest.approx(1.0)


def test_draws_come_from_every_expert_by_its_weight() -> None:
    found = learnt((flat("low", 0.0, 3.0), flat("high", 100.0, 1.0)), pending=())
    logs = found.draw(BOTH, np.random.default_rng(0), 2000)
    assert logs.shape == (2000, 1, 2)
    # 0.225 of them around 100; the sd of a share of 2,000 is sqrt(0.225 * 0.775 / 2000) = 0.0093.
    assert np.mean(logs[:, 0, 0] > 75) == pytest.approx(0.225, abs=0.03)
    # One draw is of one expert for both candidates.
    assert ((logs[:, 0, 0] > 75) == (logs[:, 0, 1] > 75)).all()


def test_draws_are_fixed_by_their_generator() -> None:
    found = learnt((flat("a", 0.0),), rate(0, 1.0))
    first, again, other = (
        found.draw(BOTH, np.random.default_rng(seed), 3).tolist() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_errors_of_two_rates_or_two_latencies_go_together_and_of_one_each_oppose() -> None:
    correlation = metric_correlation(["capacity_rps", "floor_latency_ms", "ttft_ms"])
    assert correlation.tolist() == [[1, -0.5, -0.5], [-0.5, 1, 0.5], [-0.5, 0.5, 1]]


def test_a_latency_that_was_measured_alone_moves_the_rate_as_well() -> None:
    history = History(SPACE, WITH_SLO, usd_per_hour(SPACE))
    found = Experts(
        true_mixture(SPACE, WITH_SLO), WITH_SLO, history.usd_per_hour, Coordinates(SPACE)
    )
    found.learn(history)
    before = found.believe(np.array([7]))[0].posterior.mean
    slow = Observation(
        configuration=SPACE.candidate(7),
        status=TrialStatus.MEASURED,
        measurement=Measurement(
            saturation_rps=1.0, floor_latency_ms=float(2 * np.exp(before[1, 0]))
        ),
    )
    history.observe(slow)
    found.learn(history)
    after = found.believe(np.array([7]))[0].posterior.mean
    # ln(2) * 0.3125 / 0.315 of the latency, and minus half as much of the rate
    assert after[1, 0] - before[1, 0] == pytest.approx(np.log(2) * 0.3125 / 0.315, rel=1e-4)
    assert after[0, 0] - before[0, 0] == pytest.approx(-np.log(2) / 2 * 0.3125 / 0.315, rel=1e-4)


def belief(weight: float, means: Mapping[str, float], sd: float) -> Belief:
    """Of one candidate whose metrics are independent."""
    mean = np.log(np.array(list(means.values())))[:, None]
    return Belief("expert", weight, Posterior(mean, sd**2 * np.eye(len(means))[None]))


def test_the_expected_score_is_that_of_the_medians_by_weight() -> None:
    one, other = belief(0.75, {RATE: 10.0}, 1.0), belief(0.25, {RATE: 30.0}, 2.0)
    value = log_value([one, other], Objective(), np.array([3600.0]))
    assert np.exp(value) == pytest.approx([0.75 * 10 + 0.25 * 30])


def test_the_expected_score_counts_by_the_probability_that_the_limit_is_kept() -> None:
    objective = Objective(Slo(latency_budget_ms=60.0))
    # The limit is ln(60 / 30) = ln(2) of one sd of ln(2) away: Phi(1) = 0.841345; or exactly there.
    for latency_ms, kept in ((30.0, 0.841345), (60.0, 0.5), (120.0, 0.158655)):
        metrics = {"capacity_rps": 10.0, "floor_latency_ms": latency_ms}
        value = log_value([belief(1.0, metrics, np.log(2))], objective, np.array([3600.0]))
        assert np.exp(value) == pytest.approx([10 * kept], abs=1e-4)


def test_a_limit_that_is_surely_broken_scores_next_to_nothing() -> None:
    objective = Objective(Slo(latency_budget_ms=60.0))
    metrics = {"capacity_rps": 10.0, "floor_latency_ms": 61.0}
    value = log_value([belief(1.0, metrics, 0.0)], objective, np.array([3600.0]))
    assert np.isfinite(value).all()
    assert value < -100


def make(mixture: ExpertMixture, objective: Objective = WITHOUT_SLO) -> Experts:
    return Experts(mixture, objective, usd_per_hour(SPACE), Coordinates(SPACE))


@pytest.mark.parametrize(
    ("logs", "problem"),
    [
        (
            {"capacity_rps": np.zeros(120)},
            "predicts capacity_rps, but .* saturation_rps is missing",
        ),
        ({RATE: np.zeros(3)}, "the prior speaks of 3 candidates, the space has 120"),
    ],
    ids=["metric", "length"],
)
def test_a_mixture_that_does_not_fit_is_refused(
    logs: Mapping[str, FloatArray], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        make(ExpertMixture(experts=(expert(logs),)))


def test_the_expert_that_lacks_a_metric_is_named() -> None:
    whole, half = true_logs(SPACE, WITH_SLO), true_logs(SPACE, WITH_SLO)
    del half["floor_latency_ms"]
    mixture = ExpertMixture(experts=(expert(whole), expert(half, name="roofline")))
    with pytest.raises(
        InputError, match=r"'roofline' predicts capacity_rps, .*floor_latency_ms is"
    ):
        make(mixture, WITH_SLO)


def test_an_expert_that_predicts_nothing_is_named() -> None:
    with pytest.raises(InputError, match="'mute' predicts no metric; leave it out"):
        Expert(name="mute", weight=1.0, metrics={})


def test_predictions_that_the_objective_does_not_model_are_ignored() -> None:
    truth = true_logs(SPACE, WITHOUT_SLO)
    more = make(ExpertMixture(experts=(expert(truth | {"memory_gib": np.zeros(120)}),)))
    history = History(SPACE, WITHOUT_SLO, usd_per_hour(SPACE))
    history.observe(measured(SPACE.candidate(7), WITHOUT_SLO))
    plain = make(ExpertMixture(experts=(expert(truth),)))
    more.learn(history)
    plain.learn(history)
    assert more.weights.tolist() == plain.weights.tolist()


def test_a_mixture_of_nothing_but_a_constant_is_not_informed() -> None:
    assert not learnt((flat(CONSTANT, 2.0),)).is_informed
    assert learnt((flat("roofline", 2.0),)).is_informed
