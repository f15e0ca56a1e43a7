"""The stop rule of perf_analyzer: three windows in a row that agree within 10 %.

Written from its public description (NVIDIA, "Perf Analyzer CLI", --stability-percentage and
--measurement-interval, and "Measurement Modes"): a window lasts 5 s; the measurement is stable
when the largest over the smallest of the last three windows is within 10 %, of throughput and of
mean latency alike; ten windows at most; what the three windows say together is reported.
"""

from dataclasses import dataclass

import numpy as np

from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.statistics import percentiles_ms

WINDOW_S = 5.0
STABILITY = 0.10
N_AGREEING = 3
MAX_WINDOWS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeWindows:
    """What the rule reports.

    Attributes:
        throughput_rps: Of the last three windows together.
        latency_p99_ms: Likewise.
        stable: Whether they agreed; else no more windows were left.
        ended_s: Seconds of load until then.
    """

    throughput_rps: float
    latency_p99_ms: float
    stable: bool
    ended_s: float


def three_windows(
    log: RequestLog,
    *,
    start_s: float,
    window_s: float = WINDOW_S,
    max_windows: int = MAX_WINDOWS,
) -> ThreeWindows | None:
    """Apply the rule to a load that was recorded from its first request on.

    Args:
        log: All requests that succeeded.
        start_s: When the load began, on the log's clock.
        window_s: Seconds of a window.
        max_windows: Windows after which it gives up and reports the last ones.

    Returns:
        None where the log ends before three windows or one of the last three is empty.
    """
    order = np.argsort(log.done_s, kind="stable")
    done_s, latency_s = log.done_s[order] - start_s, log.latency_ms[order] / 1000
    n_windows = min(max_windows, int(done_s[-1] // window_s)) if done_s.size else 0
    edges = np.searchsorted(done_s, window_s * np.arange(n_windows + 1))
    counts = np.diff(edges)
    for last in range(N_AGREEING, n_windows + 1):
        recent = slice(last - N_AGREEING, last)
        if np.any(counts[recent] == 0):
            continue
        means = [
            float(latency_s[a:b].mean())
            for a, b in zip(edges[:-1][recent], edges[1:][recent], strict=True)
        ]
        stable = _agree(counts[recent].astype(np.float64)) and _agree(np.asarray(means))
        if stable or last == n_windows:
            inside = slice(edges[last - N_AGREEING], edges[last])
            return ThreeWindows(
                throughput_rps=float(counts[recent].sum()) / (N_AGREEING * window_s),
                latency_p99_ms=percentiles_ms(1000 * latency_s[inside], (99.0,))[0],
                stable=stable,
                ended_s=last * window_s,
            )
    return None


def _agree(values: FloatArray) -> bool:
    return bool(values.max() <= (1 + STABILITY) * values.min())
