"""Every error that falcon_ray raises on purpose, and the exit code each one ends a command with.

    FalconRayError                1   something falcon_ray noticed and can explain
    |-- InputError                2   what the user gave cannot work (also a ValueError)
    |   |-- EmptySpaceError       2   no configuration satisfies the constraints
    |   `-- UnknownDeviceError    2   nothing is known about a device that is asked about
    |-- NothingFeasibleError      3   every trial ran, none met the objective's limits
    |-- ClusterError              4   Ray, a node, a quota or capacity
    |-- SearchInterruptedError    5   stopped early, resumable
    |-- OverBudgetError           6   going on would cost more than was allowed
    `-- TrialError                    how one trial ended without a measurement
        |-- InfeasibleError           a fact about the configuration: teaches the search
        `-- TrialFailedError          a fact about the infrastructure: retried, teaches nothing
            |-- NodesUnavailableError the nodes for it did not come: not retried at once
            `-- ReplicaLostError      a replica's process died, and nobody knows of what

The messages say what is wrong, with which value, and what to do next.
"""

from enum import Enum
from typing import ClassVar


class InfeasibleCause(Enum):
    """Which kind of fact about a configuration ended its trial."""

    MEMORY = "memory"
    """It needs more memory than it may use; so does what needs more still."""
    TIMEOUT = "timeout"
    """It was too slow to start or to be measured."""
    OTHER = "other"
    """Anything else: a crash, failing requests, outputs that are too far off."""


class FalconRayError(Exception):
    """Base of all errors that falcon_ray raises on purpose."""

    exit_code: ClassVar[int] = 1


class InputError(FalconRayError, ValueError):
    """What the user gave cannot work; nothing was deployed and nothing was lost."""

    exit_code: ClassVar[int] = 2


class EmptySpaceError(InputError):
    """No configuration is left once the constraints are applied."""


class UnknownDeviceError(InputError):
    """Neither facts nor measurements say anything about a device."""


class NothingFeasibleError(FalconRayError):
    """The trials ran, and none of their configurations met the limits."""

    exit_code: ClassVar[int] = 3


class ClusterError(FalconRayError):
    """The cluster cannot do what is asked: unreachable, too small, or out of capacity."""

    exit_code: ClassVar[int] = 4


class SearchInterruptedError(FalconRayError):
    """The search was stopped before its end; its journal is intact and it can be resumed."""

    exit_code: ClassVar[int] = 5


class OverBudgetError(FalconRayError):
    """Going on would cost more than was allowed."""

    exit_code: ClassVar[int] = 6


class TrialError(FalconRayError):
    """One trial ended without a measurement; see the two subclasses."""


class InfeasibleError(TrialError):
    """The configuration itself cannot work (out of memory, crash, time-out): a lesson.

    Attributes:
        cause: Of which kind.
        at_most_rps: What its rate cannot have exceeded, where it was too slow to measure.
    """

    def __init__(
        self,
        reason: str,
        *,
        cause: InfeasibleCause = InfeasibleCause.OTHER,
        at_most_rps: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.cause = cause
        self.at_most_rps = at_most_rps


class TrialFailedError(TrialError):
    """The infrastructure failed under the trial (node lost, interrupted): no lesson, retry."""


class ReplicaLostError(TrialFailedError):
    """A replica's process died of an unknown cause: once is an accident, every time is a crash."""


class NodesUnavailableError(TrialFailedError):
    """The nodes that a trial needs did not come in time: no lesson, and no use to ask at once."""
