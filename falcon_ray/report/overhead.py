"""What the machinery around measurements took of a search's time, from its record alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from falcon_ray.report.record import SearchRecord
from falcon_ray.space.observation import TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineryOverhead:
    """What trials cost beside warm-up and measurement: deploying, deleting, bookkeeping.

    What they waited for resources that others had is left out.

    Attributes:
        seconds_by_trial: By trial number, for the trials that were measured at the first
            attempt; in others a time-out or a failure rather than the machinery took the time.
        median_s: Their median; None where there is no such trial.
    """

    seconds_by_trial: Mapping[int, float]
    median_s: float | None


def machinery_overhead_s(record: SearchRecord) -> MachineryOverhead:
    """Wall time of each measured trial without its warm-up and its measurement, in seconds."""
    seconds = {
        trial.number: trial.wall_s - times.wait_s - times.warm_up_s - times.measure_s
        for trial in record.trials
        if trial.observation.status is TrialStatus.MEASURED and trial.observation.attempts == 1
        for times in (trial.observation.times,)
    }
    return MachineryOverhead(
        seconds_by_trial=seconds, median_s=median(seconds.values()) if seconds else None
    )
