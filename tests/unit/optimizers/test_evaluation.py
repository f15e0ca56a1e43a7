import numpy as np
import pytest

from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.evaluation import MAX_GAINS, Evaluation, Incumbent
from falcon_ray.optimizers.history import History
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.unit.optimizers.synthetic_serving import expert, failed, infeasible

RATE = "saturation_rps"
# At this price a dollar buys as many requests as the rate says: rate * 3600 s/h / 3600 USD/h.
UNIT_PRICE = 3600.0
NOTHING_YET = Incumbent(0.0, is_believed=False)


class Search:
    """A history over waits, and the evaluation of them."""

    def __init__(
        self,
        rates: list[float] | FloatArray,
        *,
        residual_sd: float = 0.25,
        memory: list[float] | None = None,
        trial_cost: FloatArray | None = None,
    ) -> None:
        n = len(rates)
        space = ConfigurationSpace.of({"batch_wait_ms": range(n)})
        self.history = History(space, Objective(), np.full(n, UNIT_PRICE))
        # The only expert is called as the constant, so that no other one is added.
        only = expert({RATE: np.log(rates)}, name="constant", residual_sd=residual_sd)
        prior = ExpertMixture(
            experts=(only,), log_memory_share=None if memory is None else np.array(memory)
        )
        self.evaluation = Evaluation(self.history, prior, trial_cost=trial_cost, seed=0)

    def observe(self, candidate: int, saturation_rps: float) -> Observation:
        observation = Observation(
            configuration=self.history.space.candidate(candidate),
            status=TrialStatus.MEASURED,
            measurement=Measurement(saturation_rps=saturation_rps),
        )
        self.history.observe(observation)
        self.evaluation.learn()
        return observation

    def expect(self, candidate: int) -> None:
        self.history.expect(candidate)
        self.evaluation.learn()

    def appeal(self, incumbent: Incumbent) -> FloatArray:
        look = self.evaluation.look(np.arange(len(self.history.space)))
        return self.evaluation.appeal(look, incumbent)


def test_the_score_to_beat_is_what_the_best_trial_is_believed_to_score() -> None:
    search = Search([10.0, 20.0, 30.0])
    assert search.evaluation.incumbent() == NOTHING_YET
    search.observe(0, 12.0)
    search.observe(1, 11.0)
    found = search.evaluation.incumbent()
    # Next to what it showed: noise is a twentieth, and its neighbours had less than expected.
    assert (found.score, found.is_believed) == (pytest.approx(12.0, rel=0.03), False)


def test_the_score_to_beat_is_a_pending_ones_where_that_is_believed_to_be_better() -> None:
    search = Search([10.0, 20.0, 30.0])
    search.expect(1)
    found = search.evaluation.incumbent()
    assert (found.score, found.is_believed) == (pytest.approx(20.0), True)
    search.observe(0, 40.0)
    found = search.evaluation.incumbent()
    # All are four times as good as expected, or nearly: what is pending is believed to be too.
    assert found.is_believed
    assert 40 < found.score < 80


def test_a_pending_trial_that_will_hardly_run_is_no_mark_to_beat() -> None:
    search = Search([10.0, 20.0], memory=[-2.0, 1.0])
    search.expect(1)
    assert search.evaluation.incumbent() == NOTHING_YET
    search.expect(0)
    # What it is believed to score where it runs, which is nearly sure.
    found = search.evaluation.incumbent()
    assert (found.score, found.is_believed) == (pytest.approx(10.0), True)


def test_before_the_first_success_the_expected_score_counts() -> None:
    appeal = Search([10.0, 20.0, 5.0]).appeal(NOTHING_YET)
    assert np.exp(appeal) == pytest.approx([10.0, 20.0, 5.0])


def test_what_will_hardly_run_is_worth_less() -> None:
    appeal = Search([10.0, 20.0], memory=[-3.0, 0.0]).appeal(NOTHING_YET)
    assert np.exp(appeal) == pytest.approx([10.0, 20.0 / 2], rel=1e-3)  # one of two fits


def test_costs_of_trials_divide_what_they_are_worth() -> None:
    search = Search([10.0, 20.0], trial_cost=np.array([1.0, 4.0]))
    assert np.exp(search.appeal(NOTHING_YET)) == pytest.approx([10.0, 5.0])
    plain = Search([10.0, 20.0]).appeal(Incumbent(9.0, is_believed=False))
    costly = search.appeal(Incumbent(9.0, is_believed=False))
    assert plain - costly == pytest.approx(np.log([1.0, 4.0]))


def test_the_gain_of_a_certain_candidate_is_the_difference() -> None:
    search = Search([100.0, 130.0], residual_sd=0.0)
    search.observe(0, 100.0)  # which leaves next to nothing of the common error
    look = search.evaluation.look(np.arange(2))
    incumbent = search.evaluation.incumbent()
    assert search.evaluation.gain(look, 1, incumbent) == pytest.approx(0.3, abs=0.01)
    assert np.exp(search.appeal(incumbent))[1] == pytest.approx(30.0, rel=0.05)


def test_candidates_whose_gain_is_not_sampled_come_after_the_others_by_value() -> None:
    rates = np.linspace(100.0, 50.0, MAX_GAINS + 40)
    appeal = Search(rates).appeal(Incumbent(100.0, is_believed=False))
    sampled, rest = appeal[:MAX_GAINS], appeal[MAX_GAINS:]
    assert sampled.min() > rest.max()
    assert (np.diff(rest) < 0).all()
    assert np.isfinite(appeal).all()


def test_a_trial_that_failed_informs_of_nothing() -> None:
    space = ConfigurationSpace.of({"batch_wait_ms": [0, 1]})
    history = History(space, Objective(), np.ones(2))
    evaluation = Evaluation(history, None, trial_cost=None, seed=0)
    assert not evaluation.is_informed
    history.observe(failed(space.candidate(0)))
    history.observe(infeasible(space.candidate(1)))
    assert not evaluation.is_informed
    assert evaluation.verdicts.out_of_memory.tolist() == [1]
    assert evaluation.verdicts.ran.size == evaluation.verdicts.other.size == 0


def test_a_latency_alone_informs() -> None:
    space = ConfigurationSpace.of({"batch_wait_ms": [0, 1]})
    history = History(space, Objective(Slo(latency_budget_ms=5.0)), np.ones(2))
    evaluation = Evaluation(history, None, trial_cost=None, seed=0)
    history.observe(
        Observation(
            configuration=space.candidate(0),
            status=TrialStatus.MEASURED,
            measurement=Measurement(saturation_rps=1.0, floor_latency_ms=9.0),
        )
    )
    evaluation.learn()
    assert evaluation.is_informed
    expected = evaluation.expected(evaluation.look(np.array([0])), 0)
    assert set(expected) == {"floor_latency_ms"}


def test_draws_score_nothing_where_the_candidate_does_not_run() -> None:
    search = Search([10.0, 10.0], memory=[-3.0, 0.0])
    scores = search.evaluation.draw(search.evaluation.look(np.arange(2)), 400)
    assert scores.shape == (400, 2)
    assert (scores[:, 0] > 0).mean() > 0.99
    # One of two fits: the sd of a share of 400 is 0.025.
    assert (scores[:, 1] > 0).mean() == pytest.approx(0.5, abs=0.1)


def test_there_is_no_outlook_before_the_first_success() -> None:
    search = Search([10.0, 20.0])
    assert search.evaluation.outlook(search.evaluation.look(np.arange(2))) is None
    search.observe(0, 10.0)
    assert search.evaluation.outlook(search.evaluation.look(np.array([1]))) is not None


def test_the_outlook_says_what_is_left_to_gain() -> None:
    # Next to nothing is unknown once one trial has shown the common error.
    search = Search([100.0, 120.0, 103.0, 80.0], residual_sd=0.001)
    search.observe(0, 100.0)
    good = search.evaluation.outlook(search.evaluation.look(np.array([1, 2, 3])))
    poor = search.evaluation.outlook(search.evaluation.look(np.array([2, 3])))
    assert good is not None
    assert poor is not None
    # The noise of 5 % in the one trial leaves as much unknown of the level. Gains of 20 % and of
    # 3 %: 0.2, and by z = 0.6 of sd 0.05 0.03 * 0.7257 + 0.05 * 0.3332 = 0.0384.
    assert good.expected_gain == pytest.approx(0.20, abs=0.01)
    assert poor.expected_gain == pytest.approx(0.0384, abs=0.008)
    # 120 is better by more than 5 %; 103 with P(z > (ln(1.05) - ln(1.03)) / 0.05 = 0.385) = 0.35.
    assert good.probability_of_better > 0.95
    assert poor.probability_of_better == pytest.approx(0.35, abs=0.1)
    assert good.n_measured == poor.n_measured == 1


def test_the_recommendation_is_one_that_was_tried() -> None:
    search = Search([10.0, 20.0, 30.0])
    assert search.evaluation.recommended() is None
    observation = search.observe(0, 10.0)
    assert search.evaluation.recommended() == observation
