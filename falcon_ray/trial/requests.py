"""When each request of a load phase was due, sent and done, and whether it succeeded.

The log knows times on one monotonic clock. It does not know what was asked, who served it, or
how many requests are too few.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from falcon_ray.space.configuration import FloatArray

BoolArray: TypeAlias = NDArray[np.bool_]

MS_PER_S = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestLog:
    """The requests of one phase, in any order; the arrays are read-only views, each shape (n,).

    Attributes:
        intended_s: When each request was due: its arrival in open loop, the moment a slot was
            free in closed loop.
        sent_s: When the client sent it.
        done_s: When its answer was complete or its failure was noticed.
        ok: Whether it succeeded.

    Raises:
        ValueError: Shapes differ, a time is not finite, or a request is done before it was
            due or sent.
    """

    intended_s: FloatArray
    sent_s: FloatArray
    done_s: FloatArray
    ok: BoolArray

    def __post_init__(self) -> None:
        for each in fields(self):
            dtype = np.bool_ if each.name == "ok" else np.float64
            array = np.asarray(getattr(self, each.name), dtype=dtype).view()
            array.setflags(write=False)
            object.__setattr__(self, each.name, array)
            if array.ndim != 1:
                raise ValueError(f"{each.name} must have one axis, got shape {array.shape}")
            if array.size != self.intended_s.size:
                raise ValueError(
                    f"{each.name} has {array.size} entries where intended_s has "
                    f"{self.intended_s.size}; log every request in all four arrays"
                )
            if not np.all(np.isfinite(array)):
                raise ValueError(
                    f"{each.name} must be finite; log a failed request at the time its failure "
                    "was noticed"
                )
        early = self.done_s < np.maximum(self.intended_s, self.sent_s)
        if np.any(early):
            first = int(np.argmax(early))
            raise ValueError(
                f"request {first} is done at {self.done_s[first]!r} s, before it was due "
                f"({self.intended_s[first]!r} s) or sent ({self.sent_s[first]!r} s); take all "
                "three times from one monotonic clock"
            )

    @property
    def n(self) -> int:
        """How many requests there are."""
        return self.done_s.size

    @property
    def latency_ms(self) -> FloatArray:
        """Time from when each request was due, so that queueing in the client counts."""
        return (self.done_s - self.intended_s) * MS_PER_S

    @property
    def lag_ms(self) -> FloatArray:
        """How late the client sent each request; a large lag means a client-limited trial."""
        return (self.sent_s - self.intended_s) * MS_PER_S

    @property
    def error_rate(self) -> float:
        """Share of requests that failed, in [0, 1]; 0 where there are none."""
        return float(np.mean(~self.ok)) if self.n else 0.0

    def due_from(self, start_s: float) -> "RequestLog":
        """The requests that were due at `start_s` or later."""
        late = self.intended_s >= start_s
        return RequestLog(
            intended_s=self.intended_s[late],
            sent_s=self.sent_s[late],
            done_s=self.done_s[late],
            ok=self.ok[late],
        )

    @classmethod
    def concat(cls, logs: Iterable["RequestLog"]) -> "RequestLog":
        """All requests of `logs`, one log after the other; empty where there are no logs."""
        parts = [cls.empty(), *logs]
        return cls(
            intended_s=np.concatenate([part.intended_s for part in parts]),
            sent_s=np.concatenate([part.sent_s for part in parts]),
            done_s=np.concatenate([part.done_s for part in parts]),
            ok=np.concatenate([part.ok for part in parts]),
        )

    @classmethod
    def empty(cls) -> "RequestLog":
        """A log without requests."""
        nothing = np.empty(0)
        return cls(intended_s=nothing, sent_s=nothing, done_s=nothing, ok=np.empty(0, np.bool_))
