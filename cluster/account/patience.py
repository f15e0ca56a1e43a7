"""Waiting for AWS, which shows what was done only after a while: always within bounds.

The module knows a clock and a pause, both of which may be others' than the machine's. It does not
know what is waited for.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from botocore.exceptions import ClientError

from cluster.aws_errors import code_of

T = TypeVar("T")

_NOT_YET = frozenset({"NoSuchEntity", "NoSuchBucket", "OperationAborted", "ConcurrentModification"})
_IN_USE = frozenset(
    {"DependencyViolation", "DeleteConflict", "InvalidGroup.InUse", "VolumeInUse", "BucketNotEmpty"}
)
EVERY_S = 2.0


def is_missing(error: ClientError) -> bool:
    """Whether something is not there, or not seen yet."""
    code = code_of(error)
    return code in _NOT_YET or code.endswith((".NotFound", ".NotAttached"))


def is_in_use(error: ClientError) -> bool:
    """Whether something cannot be removed because something else still hangs on it."""
    return code_of(error) in _IN_USE


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How waiting is done.

    Attributes:
        clock: Monotonic seconds.
        pause: Waits so many seconds.
    """

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def until(self, look: Callable[[], T], *, timeout_s: float, every_s: float = EVERY_S) -> T:
        """Look until there is something to see, at least once; the last look, whatever it saw."""
        deadline_s = self.clock() + timeout_s
        while True:
            seen = look()
            if seen or self.clock() >= deadline_s:
                return seen
            self.pause(every_s)

    def through(
        self,
        call: Callable[[], T],
        passes: Callable[[ClientError], bool],
        *,
        timeout_s: float,
        every_s: float = EVERY_S,
    ) -> T:
        """Call again while it fails in a way that passes.

        Raises:
            ClientError: It fails otherwise, or still after so many seconds.
        """
        deadline_s = self.clock() + timeout_s
        while True:
            try:
                return call()
            except ClientError as error:
                if not passes(error) or self.clock() >= deadline_s:
                    raise
            self.pause(every_s)
