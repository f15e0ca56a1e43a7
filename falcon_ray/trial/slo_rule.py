"""Whether a load at one rate keeps a latency limit, asked a few times while it goes on.

The rule sees requests in the order in which they were due. It does not know the rate, nor who
asks. Two things make requests say less than as many independent ones would: a queue begins empty,
so the first are too fast, and those of one busy period share its fate.
"""

import math
from dataclasses import dataclass

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Slo
from falcon_ray.trial.statistics import (
    SloVerdict,
    design_effect,
    requests_to_certify,
    share_verdict,
)

SLOW_QUANTILE = 0.8
SLOW_SHARE = 0.5
"""Slow is a request slower than this share of all, and slower than this share of the limit: such
requests tell busy periods apart where few are over the limit itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SloRule:
    """Looks at a load at times that double, the error spread over the looks (Bonferroni).

    The spread is uneven: most is kept for the last look, which sees all requests. An early one
    sees a few busy periods at most, and none of those that are missing.

    Attributes:
        n_looks: How often to look at most.
        early_share: Of the error, spread evenly over all looks but the last, in (0, 1).
        settling_share: Of the requests, left out at the beginning of each look.
        confidence: That MET or VIOLATED is right, over all looks together, in (0, 1).

    Raises:
        InputError: A value is out of range.
    """

    n_looks: int = 5
    early_share: float = 0.2
    settling_share: float = 0.2
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.n_looks < 1:
            raise InputError(f"n_looks must be at least 1, got {self.n_looks!r}")
        if not 0 < self.early_share < 1:
            raise InputError(f"early_share must lie between 0 and 1, got {self.early_share!r}")
        if not 0 <= self.settling_share < 1:
            raise InputError(f"settling_share must lie in [0, 1), got {self.settling_share!r}")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence must lie between 0 and 1, got {self.confidence!r}")

    def looks_s(self, max_s: float) -> tuple[float, ...]:
        """When to look, in seconds since the load began, the last time at its end."""
        return tuple(max_s * 2.0 ** (each - self.n_looks + 1) for each in range(self.n_looks))

    def error(self, *, last: bool) -> float:
        """Chance that a verdict of one look is wrong: of the last one, or of one before it."""
        error = 1 - self.confidence
        if self.n_looks == 1:
            return error
        if last:
            return error * (1 - self.early_share)
        return error * self.early_share / (self.n_looks - 1)

    def requests_to_certify(self, slo: Slo) -> int:
        """Fewest requests of one whole load, none of them over the limit, that are certified."""
        needed = requests_to_certify(slo.latency_percentile, 1 - self.error(last=True))
        return math.ceil(needed / (1 - self.settling_share))

    def judge(self, latency_ms: FloatArray, slo: Slo, *, error: float) -> SloVerdict:
        """The verdict of one look.

        Args:
            latency_ms: In the order in which requests were due, shape (n,); infinite for those
                that failed or are not answered although their time is up.
            slo: The limit and the share of requests that must keep it.
            error: Chance that MET or VIOLATED is wrong.
        """
        return self._verdict(latency_ms, slo, n_to_come=0, error=error)

    def can_still_be_met(self, latency_ms: FloatArray, slo: Slo, *, n_to_come: int) -> bool:
        """Whether the last look would say MET if all requests to come kept the limit.

        Args:
            latency_ms: As in `judge`, of the load so far.
            slo: The limit.
            n_to_come: Requests of the whole load that are not among these.
        """
        if latency_ms.size <= self._n_left_out(latency_ms.size + n_to_come):
            return True  # none of these will count
        error = self.error(last=True)
        verdict = self._verdict(latency_ms, slo, n_to_come=n_to_come, error=error)
        return verdict is SloVerdict.MET

    def _n_left_out(self, n: int) -> int:
        return math.ceil(self.settling_share * n)

    def _verdict(
        self, latency_ms: FloatArray, slo: Slo, *, n_to_come: int, error: float
    ) -> SloVerdict:
        """The verdict if so many more requests keep the limit."""
        settled_ms = latency_ms[self._n_left_out(latency_ms.size + n_to_come) :]
        if settled_ms.size == 0:
            return SloVerdict.UNDECIDED
        over = settled_ms > slo.latency_budget_ms
        slow_ms = max(
            float(np.quantile(settled_ms, SLOW_QUANTILE, method="lower")),
            SLOW_SHARE * slo.latency_budget_ms,
        )
        # Slow requests come together for longer than those over the limit do.
        effect = max(design_effect(over), math.sqrt(design_effect(settled_ms > slow_ms)))
        return share_verdict(
            np.count_nonzero(over) / effect,
            (over.size + n_to_come) / effect,
            1 - slo.latency_percentile / 100,
            1 - error,
        )
