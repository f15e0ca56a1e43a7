"""Which numbers there are for dashboards, and those of what searches share: the store, the ledger.

Metrics go to a `MetricsSink`. The module does not know Ray; `ray_metrics.py` does, and
`search_metrics.py` knows a search. `data/grafana/falcon_ray.json` shows every metric that is listed
here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

PREFIX = "ray_"
"""Ray puts it before the name of every metric that it exports."""


class Kind(Enum):
    """How a metric behaves."""

    COUNTER = "counter"
    """It grows while the process lives."""
    GAUGE = "gauge"
    """It is what it was last set to."""
    HISTOGRAM = "histogram"
    """It counts values by buckets; of their sum Ray knows what the buckets' middles say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, named by the rules of Prometheus: units last, `_total` for what only grows.

    Attributes:
        name: As it is given to Ray.
        kind: How it behaves.
        description: For people.
        labels: Names of the labels that every value of it has.
        boundaries: Upper ends of a histogram's buckets, ascending; empty for others.
    """

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...]
    boundaries: tuple[float, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """The names under which Prometheus finds it."""
        if self.kind is not Kind.HISTOGRAM:
            return (PREFIX + self.name,)
        return tuple(f"{PREFIX}{self.name}_{part}" for part in ("bucket", "count", "sum"))


TRIALS = Metric(
    name="falcon_trials_total",
    kind=Kind.COUNTER,
    description="Trials that ended, without those that measured a configuration again",
    labels=("search", "gpu_type", "status"),
)
RUNNING = Metric(
    name="falcon_trials_running",
    kind=Kind.GAUGE,
    description="Trials that are deployed or measured now",
    labels=("search", "gpu_type"),
)
WAITING = Metric(
    name="falcon_trials_waiting",
    kind=Kind.GAUGE,
    description="Trials that wait for resources that others have",
    labels=("search", "gpu_type"),
)
PROVISIONING = Metric(
    name="falcon_trials_provisioning",
    kind=Kind.GAUGE,
    description="Trials that wait for nodes that the autoscaler adds",
    labels=("search", "gpu_type"),
)
TRIAL_SECONDS = Metric(
    name="falcon_trial_seconds",
    kind=Kind.HISTOGRAM,
    description="Time from a trial's start to the end of its teardown",
    labels=("search", "gpu_type"),
    boundaries=(5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0),
)
SUGGESTION_SECONDS = Metric(
    name="falcon_suggestion_seconds",
    kind=Kind.HISTOGRAM,
    description="Time that the optimizer took to suggest a configuration",
    labels=("search",),
    boundaries=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
BEST = Metric(
    name="falcon_best_score_requests_per_usd",
    kind=Kind.GAUGE,
    description="Highest score of a trial so far",
    labels=("search",),
)
SPEND = Metric(
    name="falcon_spend_usd",
    kind=Kind.GAUGE,
    description="What trials and confirmations cost so far whose ends are in the journal",
    labels=("search",),
)
STORE_ROWS = Metric(
    name="falcon_store_rows",
    kind=Kind.GAUGE,
    description="Rows in the store of what is known",
    labels=(),
)
STORE_BYTES = Metric(
    name="falcon_store_bytes",
    kind=Kind.GAUGE,
    description="Memory that these rows take",
    labels=(),
)
LEASES = Metric(
    name="falcon_ledger_leases",
    kind=Kind.GAUGE,
    description="Trials that the ledger knows, by what became of what they ask for",
    labels=("gpu_type", "state"),
)

SEARCH_METRICS = (
    TRIALS,
    RUNNING,
    WAITING,
    PROVISIONING,
    TRIAL_SECONDS,
    SUGGESTION_SECONDS,
    BEST,
    SPEND,
)
CLUSTER_METRICS = (STORE_ROWS, STORE_BYTES, LEASES)
METRICS = (*SEARCH_METRICS, *CLUSTER_METRICS)


class MetricsSink(Protocol):
    """Where numbers go; `labels` names exactly those of the metric."""

    def add(self, metric: Metric, labels: Mapping[str, str]) -> None:
        """Count one more."""
        ...

    def put(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""
        ...

    def observe(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """Add a value to a histogram."""
        ...


class ClusterMetrics:
    """The metrics of what searches share: the store of what is known, and the ledger.

    One process tells each of them, so that nothing is counted twice.
    """

    def __init__(self, sink: MetricsSink) -> None:
        self._sink = sink
        self._leases: set[tuple[str, str]] = set()

    def store_holds(self, *, n_rows: int, n_bytes: int) -> None:
        """How large the store is now."""
        self._sink.put(STORE_ROWS, n_rows, {})
        self._sink.put(STORE_BYTES, n_bytes, {})

    def leases(self, counts: Mapping[tuple[str, str], int]) -> None:
        """How many trials the ledger knows now, by GPU type (`CPU` for none) and state."""
        # What is not mentioned any more has none; a gauge would stay at the last number.
        self._leases |= set(counts)
        for gpu_type, state in sorted(self._leases):
            n = counts.get((gpu_type, state), 0)
            self._sink.put(LEASES, n, {"gpu_type": gpu_type, "state": state})
