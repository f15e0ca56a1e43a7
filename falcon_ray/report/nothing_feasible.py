"""Why a search has nothing to recommend, and what to do next.

It knows what the trials came to. It does not know confirmations: without a trial that counts
there are none.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from falcon_ray.errors import (
    ClusterError,
    FalconRayError,
    NothingFeasibleError,
    SearchInterruptedError,
)
from falcon_ray.report.record import SearchHeader
from falcon_ray.report.valuation import Valuation, Verdict
from falcon_ray.report.wording import describe_configuration, describe_slo
from falcon_ray.space.objective import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingFeasible:
    """Why there is nothing to recommend.

    Attributes:
        closest: The trial that missed the SLO by least; None where none was measured.
        excess_ms: Its latency at the lightest load minus the budget. Not positive where the
            latency was within the budget, and too few requests were sent to certify it or too
            many of them failed.
        sentence: The finding in one sentence, and what to do next.
        error_type: What a command that was to find something ends with.
    """

    closest: Valuation | None
    excess_ms: float | None
    sentence: str
    error_type: type[FalconRayError]

    @property
    def error(self) -> FalconRayError:
        """The finding as the error that a command ends with."""
        return self.error_type(self.sentence)


def nothing_feasible(header: SearchHeader, trials: Sequence[Valuation]) -> NothingFeasible:
    """Say why none of the trials has a score."""
    slo = header.objective.slo
    measured = [
        (each.measurement.floor_latency_ms, each)
        for each in trials
        if each.measurement is not None
        and each.measurement.floor_latency_ms is not None
        and math.isfinite(each.measurement.floor_latency_ms)
    ]
    if slo is None or not measured:
        return _nothing_measured(trials)
    floor_ms, closest = min(measured, key=lambda pair: pair[0])
    name = describe_configuration(closest.configuration, header.space)
    told, where = f"None of {len(trials)} trials served {describe_slo(slo)}", "the lightest load"
    if header.objective.offered_rps is not None:
        told, where = f"{told} at {header.objective.offered_rps:g} requests/s", "that rate"
    return NothingFeasible(
        closest=closest,
        excess_ms=floor_ms - slo.latency_budget_ms,
        sentence=f"{told}; closest was {name}, {_how_far(closest, floor_ms, slo, where)}.",
        error_type=NothingFeasibleError,
    )


def _how_far(closest: Valuation, floor_ms: float, slo: Slo, where: str) -> str:
    excess_ms = floor_ms - slo.latency_budget_ms
    if excess_ms > 0:
        return (
            f"{excess_ms:.3g} ms ({100 * excess_ms / slo.latency_budget_ms:.0f} %) over at "
            f"{where}; raise the latency budget to {floor_ms:.3g} ms or more, or widen the space"
        )
    found = f"with {floor_ms:.3g} ms at {where}"
    if closest.measurement is not None and closest.measurement.slo_verdict == "violated":
        return (
            f"{found}, but too many requests failed or were late; see why in the application's "
            "logs, or give a larger --latency-budget-ms"
        )
    return (
        f"{found}, but too few requests to certify it; give a lower --latency-percentile, which "
        "takes fewer requests, or a larger --latency-budget-ms"
    )


def _nothing_measured(trials: Sequence[Valuation]) -> NothingFeasible:
    error_type: type[FalconRayError]
    if not trials:
        error_type, told = SearchInterruptedError, "No trial has ended yet; resume the search."
    else:
        reason = Counter(each.reason for each in trials).most_common(1)[0][0]
        if all(each.verdict is Verdict.FAILED for each in trials):
            error_type = ClusterError
            told = (
                f"All {len(trials)} trials failed for reasons outside their configurations, "
                f"most often: {reason}; check the cluster, then resume the search."
            )
        else:
            error_type = NothingFeasibleError
            told = (
                f"None of {len(trials)} trials could be served, most often because: {reason}; "
                "widen the space, or try the model by itself."
            )
    return NothingFeasible(closest=None, excess_ms=None, sentence=told, error_type=error_type)
