import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from falcon_ray.report.valuation import value
from falcon_ray.runtime.metrics import (
    BEST,
    LEASES,
    METRICS,
    PROVISIONING,
    RUNNING,
    SEARCH_METRICS,
    SPEND,
    STORE_BYTES,
    STORE_ROWS,
    SUGGESTION_SECONDS,
    TRIAL_SECONDS,
    TRIALS,
    WAITING,
    ClusterMetrics,
    Kind,
    Metric,
)
from falcon_ray.runtime.search_metrics import SearchMetrics
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.cost import Pricing
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.unit.report.searches import HEADER, gpu_instance, measured, not_measured

GPUS = replace(HEADER, pricing=Pricing((gpu_instance("g4", "T4", 0.5),)))
T4 = Configuration({"gpu_type": "T4", "batch_size": 1})
OF_T4 = {"search": "s1", "gpu_type": "T4"}
OF_SEARCH = {"search": "s1"}


class FakeSink:
    """Keeps what it is told, as Prometheus would."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
        self.gauges: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.observed: dict[tuple[str, frozenset[tuple[str, str]]], list[float]] = {}

    def add(self, metric: Metric, labels: Mapping[str, str]) -> None:
        self.counted[self._key(metric, labels, Kind.COUNTER)] += 1

    def put(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        self.gauges[self._key(metric, labels, Kind.GAUGE)] = amount

    def observe(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        key = self._key(metric, labels, Kind.HISTOGRAM)
        self.observed.setdefault(key, []).append(amount)

    def gauge(self, metric: Metric, labels: Mapping[str, str]) -> float:
        return self.gauges[metric.name, frozenset(labels.items())]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in (*self.counted, *self.gauges, *self.observed)}

    @staticmethod
    def _key(
        metric: Metric, labels: Mapping[str, str], kind: Kind
    ) -> tuple[str, frozenset[tuple[str, str]]]:
        assert metric.kind is kind
        # Ray refuses a value that lacks a label.
        assert set(labels) == set(metric.labels)
        return metric.name, frozenset(labels.items())


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def search(sink: FakeSink) -> SearchMetrics:
    """The metrics of a search on T4s that has just begun."""
    metrics = SearchMetrics(sink)
    metrics.search_started(GPUS, n_done=0, max_trials=9, usd=0.5)
    return metrics


def served(rate_rps: float) -> Observation:
    return measured(T4, Measurement(saturation_rps=rate_rps))


def test_a_trial_is_counted_where_it_stands(sink: FakeSink, search: SearchMetrics) -> None:
    def standing() -> list[float]:
        return [sink.gauge(each, OF_T4) for each in (RUNNING, WAITING, PROVISIONING)]

    search.trial_started("Trial 1", T4, "next")
    search.trial_started("Trial 2", T4, "next")
    assert standing() == [2, 0, 0]
    search.phase("Trial 1", "waiting")
    search.phase("Trial 2", "provisioning")
    assert standing() == [0, 1, 1]
    search.phase("Trial 1", "deploying")
    assert standing() == [1, 0, 1]
    search.trial_ended("Trial 1", served(10.0), wall_s=20.0)
    assert standing() == [0, 0, 1]
    search.close()
    assert standing() == [0, 0, 0]


def test_trials_that_ended_are_counted_by_status_and_timed(
    sink: FakeSink, search: SearchMetrics
) -> None:
    ends = (
        served(10.0),
        not_measured(T4, TrialStatus.INFEASIBLE, "out of memory"),
        not_measured(T4, TrialStatus.FAILED, "the node is lost"),
        served(20.0),
    )
    for wall_s, observation in enumerate(ends, start=1):
        search.trial_ended("Trial 1", observation, wall_s=wall_s)
    search.trial_ended("Confirming the best", served(20.0), wall_s=9.0, is_fresh=True)
    counted = {
        status: sink.counted[TRIALS.name, frozenset({**OF_T4, "status": status}.items())]
        for status in ("measured", "infeasible", "failed")
    }
    assert counted == {"measured": 2, "infeasible": 1, "failed": 1}
    assert sink.observed[TRIAL_SECONDS.name, frozenset(OF_T4.items())] == [1, 2, 3, 4]


def test_the_best_score_and_the_spend_go_on_from_before(sink: FakeSink) -> None:
    search = SearchMetrics(sink)
    best = value(served(30.0), GPUS.objective, GPUS.pricing)
    search.search_started(GPUS, n_done=1, max_trials=9, best=best, usd=0.5)
    # 30 requests/s * 3600 s/h / 0.5 USD/h
    assert sink.gauge(BEST, OF_SEARCH) == pytest.approx(216_000)
    search.trial_ended("Trial 2", served(20.0), wall_s=1.0, usd=0.25)
    assert sink.gauge(BEST, OF_SEARCH) == pytest.approx(216_000)
    assert sink.gauge(SPEND, OF_SEARCH) == pytest.approx(0.75)
    search.trial_ended("Trial 3", served(40.0), wall_s=1.0, usd=0.25, is_fresh=True)
    assert sink.gauge(BEST, OF_SEARCH) == pytest.approx(216_000)
    search.trial_ended("Trial 4", served(40.0), wall_s=1.0)
    assert sink.gauge(BEST, OF_SEARCH) == pytest.approx(288_000)
    assert sink.gauge(SPEND, OF_SEARCH) == pytest.approx(1.0)


def test_emulated_gpus_have_neither_a_spend_nor_a_best_score(sink: FakeSink) -> None:
    search = SearchMetrics(sink)
    search.search_started(replace(GPUS, emulated=True), n_done=0, max_trials=9, usd=0.5)
    search.trial_ended("Trial 1", served(20.0), wall_s=1.0, usd=0.25)
    assert not {BEST.name, SPEND.name} & sink.names
    assert TRIALS.name in sink.names


def test_without_a_score_there_is_no_best(sink: FakeSink, search: SearchMetrics) -> None:
    search.trial_ended("1", not_measured(T4, TrialStatus.FAILED, "the node is lost"), wall_s=1.0)
    assert BEST.name not in sink.names


def test_suggestions_are_timed(sink: FakeSink, search: SearchMetrics) -> None:
    search.suggested(0.004)
    search.suggested(0.5)
    assert sink.observed[SUGGESTION_SECONDS.name, frozenset(OF_SEARCH.items())] == [0.004, 0.5]


def test_the_store_and_the_leases_are_what_they_were_last_told_to_be(sink: FakeSink) -> None:
    cluster = ClusterMetrics(sink)
    cluster.store_holds(n_rows=10, n_bytes=4096)
    cluster.leases({("T4", "granted"): 2, ("CPU", "waiting"): 1})
    cluster.leases({("T4", "granted"): 1})
    assert (sink.gauge(STORE_ROWS, {}), sink.gauge(STORE_BYTES, {})) == (10, 4096)
    assert sink.gauge(LEASES, {"gpu_type": "T4", "state": "granted"}) == 1
    assert sink.gauge(LEASES, {"gpu_type": "CPU", "state": "waiting"}) == 0


def test_a_search_sets_every_metric_that_is_listed_as_its_own(
    sink: FakeSink, search: SearchMetrics
) -> None:
    search.suggested(0.004)
    search.trial_started("Trial 1", T4, "next")
    search.trial_ended("Trial 1", served(10.0), wall_s=20.0)
    assert sink.names == {each.name for each in SEARCH_METRICS}


@pytest.mark.parametrize("metric", METRICS, ids=lambda each: each.name)
def test_a_metric_is_named_by_the_rules_of_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"falcon_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert bool(metric.boundaries) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.boundaries) == sorted(metric.boundaries)
    # Ray's own labels, and what Prometheus keeps for itself.
    assert not {"WorkerId", "NodeAddress", "SessionName", "le", "job", "instance"} & set(
        metric.labels
    )


def test_no_two_metrics_share_a_name() -> None:
    names = [name for each in METRICS for name in each.exported]
    assert len(names) == len(set(names))
