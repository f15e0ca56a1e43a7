"""Which load a deployment is judged by: given by the user, never searched.

A workload knows what is asked of a service. It does not know how requests are sent.
"""

import math
from dataclasses import dataclass
from enum import Enum

from falcon_ray.errors import InputError

MAX_RATE_RPS = 1e6
"""No load generator of ours can offer more, and a rate beyond it is a mistaken unit."""


class Scenario(Enum):
    """How requests arrive, by the names of MLPerf Inference (Reddi et al., 2020, sec. 4)."""

    OFFLINE = "offline"
    """All requests are there at once: closed loop with every queue full; throughput counts."""
    SERVER = "server"
    """Requests arrive at random, whatever happened to the earlier ones; a latency limit holds."""
    SINGLE_STREAM = "single_stream"
    """The next request is sent when the last was answered: one is in flight at a time."""


class LoadPath(Enum):
    """Where requests enter."""

    HANDLE = "handle"
    """Through a Serve deployment handle: what another Serve application gets."""
    HTTP = "http"
    """Through Serve's HTTP proxy: what a client outside of Ray gets."""
    REPLICA = "replica"
    """Inside the replica, before its batching queue: the model without Serve's request path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The load that configurations are compared under.

    Attributes:
        scenario: How requests arrive.
        path: Where they enter.
        offered_rps: In the server scenario, the one rate that has to be served within the limit;
            None looks for the highest rate that is.

    Raises:
        InputError: The rate is not positive, absurd, or given in another scenario.
    """

    scenario: Scenario = Scenario.OFFLINE
    path: LoadPath = LoadPath.HANDLE
    offered_rps: float | None = None

    def __post_init__(self) -> None:
        rate = self.offered_rps
        if rate is None:
            return
        if self.scenario is not Scenario.SERVER:
            raise InputError(
                f"a rate is offered in the server scenario only, not in {self.scenario.value}; "
                "leave out offered_rps, or give a latency budget"
            )
        if not (math.isfinite(rate) and rate > 0):
            raise InputError(f"offered_rps must be positive and finite, got {rate!r}")
        if rate > MAX_RATE_RPS:
            raise InputError(
                f"offered_rps of {rate:g} is more than {MAX_RATE_RPS:g} requests per second; "
                "give requests per second"
            )
