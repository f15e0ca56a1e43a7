"""Metrics by Ray: each node's agent hands them to Prometheus.

Values leave a process every ten seconds, Ray's default; what it recorded last may be lost when
it ends before. Nothing here knows what the numbers mean.
"""

from collections.abc import Iterable, Mapping

from ray.util import metrics

from falcon_ray.runtime.metrics import METRICS, Kind, Metric


class RayMetrics:
    """A `MetricsSink` for a process that is connected to Ray.

    Args:
        listed: The metrics that there may be.
    """

    def __init__(self, listed: Iterable[Metric] = METRICS) -> None:
        self._counters: dict[str, metrics.Counter] = {}
        self._gauges: dict[str, metrics.Gauge] = {}
        self._histograms: dict[str, metrics.Histogram] = {}
        for each in listed:
            match each.kind:
                case Kind.COUNTER:
                    self._counters[each.name] = metrics.Counter(
                        each.name, each.description, tag_keys=each.labels
                    )
                case Kind.GAUGE:
                    self._gauges[each.name] = metrics.Gauge(
                        each.name, each.description, tag_keys=each.labels
                    )
                case Kind.HISTOGRAM:
                    self._histograms[each.name] = metrics.Histogram(
                        each.name,
                        each.description,
                        boundaries=list(each.boundaries),
                        tag_keys=each.labels,
                    )

    def add(self, metric: Metric, labels: Mapping[str, str]) -> None:
        """See `MetricsSink.add`."""
        self._counters[metric.name].inc(1, dict(labels))

    def put(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """See `MetricsSink.put`."""
        self._gauges[metric.name].set(amount, dict(labels))

    def observe(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """See `MetricsSink.observe`."""
        self._histograms[metric.name].observe(amount, dict(labels))
