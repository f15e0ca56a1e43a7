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

    Attributes:
        n_looks: How often to look at most.
        settling_share: Of the requests, left out at the beginning of each look.
        confidence: That MET or VIOLATED is right, over all looks together, in (0, 1).

    Raises:
        InputError: A value is out of range.
    """

    n_looks: int = 5
    settling_share: float = 0.2
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.n_looks < 1:
            raise InputError(f"n_looks must be at least 1, got {self.n_looks!r}")
        if not 0 <= self.settling_share < 1:
            raise InputError(f"settling_share must lie in [0, 1), got {self.settling_share!r}")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence must lie between 0 and 1, got {self.confidence!r}")

    def looks_s(self, max_s: float) -> tuple[float, ...]:
        """When to look, in seconds since the load began, the last time at its end."""
        return tuple(max_s * 2.0 ** (each - self.n_looks + 1) for each in range(self.n_looks))

    def requests_to_certify(self, slo: Slo) -> int:
        """Fewest requests of one load, none of them over the limit, that are certified."""
        confidence = 1 - (1 - self.confidence) / self.n_looks
        needed = requests_to_certify(slo.latency_percentile, confidence)
        return math.ceil(needed / (1 - self.settling_share))

    def judge(self, latency_ms: FloatArray, slo: Slo, *, n_looks: int) -> SloVerdict:
        """The verdict of one look.

        Args:
            latency_ms: In the order in which requests were due, shape (n,); infinite for those
                that failed or are not answered although their time is up.
            slo: The limit and the share of requests that must keep it.
            n_looks: Looks that the error is spread over.
        """
        settled_ms = latency_ms[math.ceil(self.settling_share * latency_ms.size) :]
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
            over.size / effect,
            1 - slo.latency_percentile / 100,
            1 - (1 - self.confidence) / n_looks,
        )
