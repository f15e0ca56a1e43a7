"""A suggestion costs the leaf and not the space: counted in candidates, not in seconds."""

from collections.abc import Mapping

import numpy as np

from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.evaluation import MAX_GAINS
from falcon_ray.optimizers.mcts import MAX_LOOKED_AT, MonteCarloTreeSearch, Parallel
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.unit.optimizers.synthetic_serving import expert, infeasible, suggest

# 3 * 8 * 7 * 6 * 7 * 17 = 119,952 candidates.
SPACE = ConfigurationSpace.of(
    {
        "gpu_type": ["T4", "L4", "A10G"],
        "batch_size": [1, 2, 4, 8, 16, 32, 64, 128],
        "cpu_cores": [1, 2, 4, 8, 16, 32, 64],
        "replicas": [1, 2, 4, 8, 16, 32],
        "concurrency": [1, 2, 4, 8, 16, 32, 64],
        "batch_wait_ms": range(17),
    }
)
BEST = {
    "gpu_type": "L4",
    "batch_size": 64,
    "cpu_cores": 8,
    "replicas": 8,
    "concurrency": 16,
    "batch_wait_ms": 8,
}


def log_rates() -> FloatArray:
    """Smooth, falling in every direction from the best, shape (n,)."""
    logs = np.full(len(SPACE), 5.0)
    for each, codes in zip(SPACE.dimensions, SPACE.codes.T, strict=True):
        at = each.values.index(BEST[each.name])
        logs -= 1.0 * (codes != at) if each.name == "gpu_type" else (codes - at) ** 2 / 20
    return logs


LOGS = log_rates()


def prior_of(logs: FloatArray, *, with_operators: bool = True) -> ExpertMixture:
    """One operator takes most of the time, another a fifth of that."""
    seconds = np.exp(-LOGS)
    operators = {"linear": seconds, "softmax": 0.2 * seconds} if with_operators else {}
    return ExpertMixture(experts=(expert({"saturation_rps": logs}),), operator_seconds=operators)


class CountingObjective:
    """Requests per dollar; notes for how many candidates it was asked, call by call."""

    def __init__(self) -> None:
        self._objective = Objective()
        self.asked: list[int] = []

    @property
    def modelled_metrics(self) -> tuple[str, ...]:
        return self._objective.modelled_metrics

    @property
    def limits(self) -> Mapping[str, float]:
        return self._objective.limits

    def value(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        self.asked.append(usd_per_hour.size)
        return self._objective.value(metrics, usd_per_hour)

    def score(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        self.asked.append(usd_per_hour.size)
        return self._objective.score(metrics, usd_per_hour)

    def score_measurement(self, measurement: Measurement, *, usd_per_hour: float) -> float | None:
        return self._objective.score_measurement(measurement, usd_per_hour=usd_per_hour)

    def uninformed_means(self, usd_per_hour: FloatArray) -> Mapping[str, FloatArray]:
        return self._objective.uninformed_means(usd_per_hour)


def make(
    objective: CountingObjective,
    prior: ExpertMixture | None,
    parallel: Parallel = Parallel.BELIEVER,
) -> MonteCarloTreeSearch:
    optimizer = MonteCarloTreeSearch(
        SPACE, objective, np.ones(len(SPACE)), seed=0, prior=prior, parallel=parallel
    )
    objective.asked.clear()
    return optimizer


def row_of(configuration: Configuration) -> int:
    row = SPACE.position(configuration)
    assert row is not None
    return row


def measured(configuration: Configuration) -> Observation:
    rate = float(np.exp(LOGS[row_of(configuration)]))
    return Observation(
        configuration=configuration,
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=rate),
    )


def assert_few_were_looked_at(objective: CountingObjective) -> None:
    """Since the last time: of either expert all leaves' likeliest, one leaf, and some gains."""
    assert objective.asked
    assert max(objective.asked) <= MAX_LOOKED_AT
    of_one_expert = 2 * MAX_LOOKED_AT + 3 * MAX_GAINS
    assert sum(objective.asked) <= 2 * of_one_expert < len(SPACE) / 6
    objective.asked.clear()


def test_a_suggestion_costs_the_leaf_and_not_the_space() -> None:
    objective = CountingObjective()
    optimizer = make(objective, prior_of(LOGS))
    tried = [suggest(optimizer)]
    assert dict(tried[0]) == BEST
    assert_few_were_looked_at(objective)
    for _ in range(3):
        optimizer.observe(measured(tried[-1]))
        tried.append(suggest(optimizer))
        assert_few_were_looked_at(objective)
    assert optimizer.outlook() is not None
    assert_few_were_looked_at(objective)
    assert optimizer.recommend() == measured(tried[0])
    optimizer.observe(infeasible(tried[-1]))
    tried.append(suggest(optimizer))
    assert_few_were_looked_at(objective)
    assert len(set(tried)) == 5
    assert {"candidates", "index"}.isdisjoint(SPACE.__dict__)


def test_the_tree_of_a_large_space_parts_it_into_leaves_that_say_why() -> None:
    optimizer = make(CountingObjective(), prior_of(LOGS))
    leaves = list(optimizer.root.leaves())
    assert sum(leaf.rows.size for leaf in leaves) == len(SPACE)
    assert max(leaf.rows.size for leaf in leaves) <= MAX_LOOKED_AT
    assert min(leaf.rows.size for leaf in leaves) >= len(SPACE) // 2048
    assert all("throughput per dollar of linear" in leaf.why for leaf in leaves)


def test_workers_that_draw_look_at_few_as_well() -> None:
    objective = CountingObjective()
    optimizer = make(objective, prior_of(LOGS, with_operators=False), Parallel.THOMPSON)
    tried: list[Configuration] = []
    for _ in range(4):
        tried.append(suggest(optimizer))
        assert_few_were_looked_at(objective)
    assert len(set(tried)) == 4
    expected = LOGS[[row_of(each) for each in tried]]
    assert expected.min() > np.quantile(LOGS, 0.99)  # draws are among the likeliest


def test_without_a_prior_it_starts_in_the_middle_of_some_and_goes_on_with_what_it_sees() -> None:
    objective = CountingObjective()
    optimizer = make(objective, None)
    assert optimizer.root.is_leaf
    tried = [suggest(optimizer)]
    assert 16 <= tried[0].count("batch_size", 1) <= 32  # near the middle, in what was drawn
    for _ in range(3):
        optimizer.observe(measured(tried[-1]))
        tried.append(suggest(optimizer))
        assert_few_were_looked_at(objective)
    assert len(set(tried)) == 4
    assert {"candidates", "index"}.isdisjoint(SPACE.__dict__)


def test_what_a_wrong_prior_ranks_low_is_looked_at_too() -> None:
    # Ranks are those of a prior that knows nothing: the trials soon speak for the constant.
    wrong = np.random.default_rng(0).permutation(LOGS)
    optimizer = make(CountingObjective(), prior_of(wrong, with_operators=False))
    ranks = np.empty(len(SPACE), dtype=np.intp)
    ranks[np.argsort(-wrong, kind="stable")] = np.arange(len(SPACE))
    tried: list[Configuration] = []
    for _ in range(7):
        tried.append(suggest(optimizer))
        optimizer.observe(measured(tried[-1]))
    of_tried = ranks[[row_of(each) for each in tried]]
    assert of_tried[0] == 0
    assert of_tried.max() > MAX_LOOKED_AT
