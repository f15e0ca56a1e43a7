"""A search in numbers, for dashboards: what sets the metrics of one.

`SearchMetrics` listens to a search beside its display, and writes to a `MetricsSink`. It does not
know Ray.
"""

from falcon_ray.report.record import SearchHeader
from falcon_ray.report.valuation import Valuation
from falcon_ray.runtime.metrics import (
    BEST,
    PROVISIONING,
    RUNNING,
    SPEND,
    SUGGESTION_SECONDS,
    TRIAL_SECONDS,
    TRIALS,
    WAITING,
    MetricsSink,
)
from falcon_ray.runtime.progress.state import SearchProgress, Stage, accelerator
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation

_STAGES = {
    Stage.RUNNING: RUNNING,
    Stage.WAITING: WAITING,
    Stage.PROVISIONING: PROVISIONING,
}


class SearchMetrics:
    """A `SearchDisplay` that keeps the metrics of one search."""

    def __init__(self, sink: MetricsSink) -> None:
        self._sink = sink
        self._progress = SearchProgress()
        self._search = ""
        self._seen: set[str] = set()

    def note(self, text: str) -> None:
        """See `SearchDisplay.note`; no number."""

    def search_started(
        self,
        header: SearchHeader,
        *,
        n_done: int,
        max_trials: int,
        best: Valuation | None = None,
        usd: float = 0.0,
        max_cost_usd: float | None = None,
    ) -> None:
        """See `SearchDisplay.search_started`."""
        self._search = header.search_id
        self._progress = SearchProgress(
            header=header,
            max_trials=max_trials,
            n_before=n_done,
            best=best,
            usd=usd,
            max_cost_usd=max_cost_usd,
        )
        self._put_totals()

    def suggested(self, seconds_s: float) -> None:
        """See `SearchDisplay.suggested`."""
        self._sink.observe(SUGGESTION_SECONDS, seconds_s, {"search": self._search})

    def trial_started(self, label: str, configuration: Configuration, why: str) -> None:  # noqa: ARG002
        """See `SearchDisplay.trial_started`."""
        self._progress = self._progress.started(label, configuration, now_s=0.0)
        self._put_stages()

    def phase(self, label: str, text: str) -> None:
        """See `SearchDisplay.phase`."""
        self._progress = self._progress.at_phase(label, text)
        self._put_stages()

    def trial_ended(
        self,
        label: str,
        observation: Observation,
        *,
        wall_s: float,
        usd: float | None = None,
        is_fresh: bool = False,
    ) -> None:
        """See `SearchDisplay.trial_ended`."""
        self._progress = self._progress.with_end(label, observation, usd=usd, is_fresh=is_fresh)
        if not is_fresh:
            at = {"search": self._search, "gpu_type": accelerator(observation.configuration)}
            self._sink.add(TRIALS, {**at, "status": observation.status.value})
            self._sink.observe(TRIAL_SECONDS, wall_s, at)
        self._put_stages()
        self._put_totals()

    def close(self) -> None:
        """See `SearchDisplay.close`; the process may live on, and its gauges with it."""
        self._progress = self._progress.stopped()
        self._put_stages()

    def _put_stages(self) -> None:
        counts = {each.name: each.stages for each in self._progress.counts()}
        # Where a trial ran and none does any more, a gauge would stay at one.
        self._seen |= set(counts)
        for name in sorted(self._seen):
            for stage, metric in _STAGES.items():
                n = counts[name][stage] if name in counts else 0
                self._sink.put(metric, n, {"search": self._search, "gpu_type": name})

    def _put_totals(self) -> None:
        header = self._progress.header
        if header is not None and header.emulated:
            return  # nothing was spent, and no rate was measured
        self._sink.put(SPEND, self._progress.usd, {"search": self._search})
        if (score := self._progress.best_score) is not None:
            self._sink.put(BEST, score, {"search": self._search})
