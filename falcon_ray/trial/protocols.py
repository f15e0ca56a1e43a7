"""What a trial needs from the world: to serve, to load, and to watch.

The recipe knows only these; Ray stands behind them in production, and short fakes in tests.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from falcon_ray.space.configuration import Configuration, FloatArray
from falcon_ray.trial.requests import RequestLog


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """What only the deployment itself can tell.

    Attributes:
        service_time_ms: Median time of a full batch, None where unknown.
        output_error: Largest relative output difference from float32, None where unknown.
        enforcement: How each limit was enforced.
        environment: Device, versions and the like.
    """

    service_time_ms: float | None = None
    output_error: float | None = None
    enforcement: Mapping[str, str] = field(default_factory=dict[str, str])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


class Endpoint(Protocol):
    """A live deployment that answers requests."""

    @property
    def concurrency(self) -> int:
        """Requests in flight that keep every replica's queue full."""
        ...

    @property
    def granularity(self) -> int:
        """Requests of one round: a full batch of every replica; 1 where nothing is batched."""
        ...

    def replicas(self) -> frozenset[str]:
        """Identities of the replicas that serve now; a replacement has a new one."""
        ...

    def facts(self) -> EndpointFacts:
        """What the deployment tells about itself."""
        ...


EndpointT = TypeVar("EndpointT", bound=Endpoint)
EndpointT_co = TypeVar("EndpointT_co", bound=Endpoint, covariant=True)
EndpointT_contra = TypeVar("EndpointT_contra", bound=Endpoint, contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a trial holds of the world while it is deployed.

    Attributes:
        node_ids: Where its replicas have their places; empty where anywhere will do.
        provision_s: Seconds for which nodes were added for it.
    """

    node_ids: tuple[str, ...] = ()
    provision_s: float = 0.0


class ServingBackend(Protocol[EndpointT_co]):
    """Deploys a configuration."""

    def reserve(self, configuration: Configuration) -> AbstractContextManager[Reservation]:
        """Wait for all that the configuration takes, and hold it until the context exits.

        Raises:
            InfeasibleError: Nothing could ever hold it.
            TrialFailedError: It did not come in time, or was lost.
        """
        ...

    def deploy(
        self, configuration: Configuration, reservation: Reservation
    ) -> AbstractContextManager[EndpointT_co]:
        """Serve the target there until the context exits.

        Raises:
            InfeasibleError: The configuration cannot be served: does not fit, crashes, hangs.
            TrialFailedError: The infrastructure failed; the configuration may be fine.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadHealth:
    """Whether the load's own processes kept up, since the last asking or the session's start.

    Attributes:
        n_drivers: Processes that send.
        lag_ms: Mean time by which they were late to do what was due; the worst process counts.
        cpu_share: CPU time over wall time of the busiest of them: near 1, it could do no more.
        in_flight: Requests without an answer now.
        oldest_in_flight_s: How long the oldest of these has waited; 0 where there is none.
    """

    n_drivers: int
    lag_ms: float
    cpu_share: float
    in_flight: int
    oldest_in_flight_s: float


class LoadSession(Protocol):
    """Load that goes on while the context is open."""

    def run_for(self, seconds: float) -> RequestLog:
        """Let the load go on for about that long; the requests completed since the last call.

        An open loop whose last request was answered returns early.
        """
        ...

    def health(self) -> LoadHealth:
        """Whether the load kept up since the last call, or since the session began."""
        ...


class LoadGenerator(Protocol[EndpointT_contra]):
    """Sends requests to an endpoint and records each one.

    Leaving a session's context gives up what is in flight, and the load generator is ready for
    the next session at once.
    """

    def closed_loop(
        self, endpoint: EndpointT_contra, *, concurrency: int
    ) -> AbstractContextManager[LoadSession]:
        """Keep `concurrency` requests in flight while the context is open."""
        ...

    def open_loop(
        self, endpoint: EndpointT_contra, *, arrivals_s: FloatArray
    ) -> AbstractContextManager[LoadSession]:
        """Send one request at each intended time, whatever happened to the earlier ones.

        Every request ends: answered, failed, or given up after the generator's time-out.

        Args:
            endpoint: Where to send.
            arrivals_s: Ascending seconds from the start of the load, shape (n,).
        """
        ...

    def add_drivers(self) -> bool:
        """Send from twice as many processes from the next session on; False where no more help."""
        ...

    def last_error(self) -> str:
        """What the latest failed request said; empty when none failed."""
        ...

    def lost_replica(self) -> bool:
        """Whether a request of this load failed because the process that had it died."""
        ...

    def response_metrics(self) -> Mapping[str, float]:
        """Means of the metrics that the target reads from its responses; often empty."""
        ...


class DeviceUsage(Protocol):
    """What a watched endpoint used so far; None where it cannot be seen."""

    @property
    def memory_gib(self) -> float | None:
        """Largest resident memory of one replica's process."""
        ...

    @property
    def gpu_memory_gib(self) -> float | None:
        """Largest GPU memory of one replica."""
        ...

    @property
    def gpu_utilization_pct(self) -> float | None:
        """Mean share of time in which a kernel ran, over the watched GPUs, in [0, 100]."""
        ...

    @property
    def gpu_power_w(self) -> float | None:
        """Mean power of all watched GPUs together."""
        ...

    @property
    def out_of_memory_kills(self) -> int:
        """Processes that the operating system killed for want of memory, on the watched nodes."""
        ...


class DeviceMonitor(Protocol[EndpointT_contra]):
    """Watches what a deployment uses."""

    def watch(self, endpoint: EndpointT_contra) -> AbstractContextManager[DeviceUsage]:
        """Sample the endpoint's replicas until the context exits."""
        ...
