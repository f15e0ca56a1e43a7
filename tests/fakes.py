"""The world of a trial without Ray: a batching service, its load and its clock, in virtual time.

The service has one server that works on one batch at a time; every batch takes `service_s`,
full or not, so its throughput is known exactly. Nothing here sleeps or draws random numbers.
"""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from falcon_ray.space.configuration import Configuration, FloatArray
from falcon_ray.trial.protocols import EndpointFacts, LoadHealth, LoadSession, Reservation
from falcon_ray.trial.requests import RequestLog


class VirtualClock:
    """Seconds that pass only when told to; call it to read it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass(kw_only=True)
class FakeEndpoint:
    """A live deployment; also an `Endpoint`.

    Attributes:
        clock: Virtual time.
        batch_size: Largest batch.
        service_s: Time of any batch.
        fail_every: Every so manyth request fails; 0 for none.
        open_loop_fails: Whether every request fails that comes at an offered rate.
        replaced_after_s: Seconds from deployment until its replica is replaced by another.
        said: What it says about itself.
        hangs_after_s: Seconds from deployment after which no batch completes any more.
        deployed_s: When it was deployed.
    """

    clock: VirtualClock
    batch_size: int = 4
    service_s: float = 0.04
    fail_every: int = 0
    open_loop_fails: bool = False
    replaced_after_s: float = math.inf
    said: EndpointFacts = field(default_factory=EndpointFacts)
    hangs_after_s: float = math.inf
    deployed_s: float = 0.0

    @property
    def saturation_rps(self) -> float:
        return self.batch_size / self.service_s

    @property
    def concurrency(self) -> int:
        return 2 * self.batch_size

    @property
    def granularity(self) -> int:
        return self.batch_size

    def replicas(self) -> frozenset[str]:
        lived_s = self.clock() - self.deployed_s
        return frozenset({"second" if lived_s >= self.replaced_after_s else "first"})

    def facts(self) -> EndpointFacts:
        return self.said

    @property
    def last_answer_s(self) -> float:
        return self.deployed_s + self.hangs_after_s


@dataclass
class FakeBackend:
    """Gives one endpoint for each deployment in turn, or raises the error in its place.

    Attributes:
        clock: Virtual time.
        attempts: What each deployment gives; the last one also what all later ones give.
        deploy_s: How long a deployment takes to start or to fail.
        teardown_s: How long it takes to go.
        wait_s: How long its resources are waited for.
        provision_s: How much of that is said to bring up nodes.
        no_room: What each wait for resources ends with in turn, None where they come; all later
            ones get them.
        events: Every `deploy` and `teardown`, in order.
    """

    clock: VirtualClock
    attempts: list[FakeEndpoint | Exception]
    deploy_s: float = 2.0
    teardown_s: float = 0.5
    wait_s: float = 0.0
    provision_s: float = 0.0
    no_room: list[Exception | None] = field(default_factory=list[Exception | None])
    events: list[str] = field(default_factory=list[str])

    @contextmanager
    def reserve(self, configuration: Configuration) -> Generator[Reservation]:
        del configuration  # there is room for every one
        self.clock.advance(self.wait_s)
        if self.no_room and (error := self.no_room.pop(0)) is not None:
            raise error
        yield Reservation(provision_s=self.provision_s)

    @contextmanager
    def deploy(
        self, configuration: Configuration, reservation: Reservation
    ) -> Generator[FakeEndpoint]:
        del configuration, reservation  # every one is served alike
        turn = self.events.count("deploy")
        self.events.append("deploy")
        try:
            self.clock.advance(self.deploy_s)
            given = self.attempts[min(turn, len(self.attempts) - 1)]
            if isinstance(given, Exception):
                raise given
            yield replace(given, deployed_s=self.clock())
        finally:
            self.clock.advance(self.teardown_s)
            self.events.append("teardown")


class _ClosedLoop:
    """Clients that send again as soon as they are answered, so that the server never idles."""

    def __init__(self, load: "FakeLoadGenerator", endpoint: FakeEndpoint, concurrency: int) -> None:
        self._load = load
        self._endpoint = endpoint
        self._free_s = load.clock()
        self._waiting_since_s = [self._free_s] * concurrency

    def run_for(self, seconds: float) -> RequestLog:
        self._load.maybe_raise()
        self._load.clock.advance(seconds)
        until_s = min(self._load.clock(), self._endpoint.last_answer_s)
        batch_s = self._load.batch_s(self._endpoint)
        due_s = list[float]()
        done_s = list[float]()
        while self._free_s + batch_s <= until_s:
            batch = self._waiting_since_s[: self._endpoint.batch_size]
            self._free_s += batch_s
            self._waiting_since_s = self._waiting_since_s[len(batch) :]
            self._waiting_since_s += [self._free_s] * len(batch)
            due_s += batch
            done_s += [self._free_s] * len(batch)
        due = np.array(due_s)
        return self._load.log(self._endpoint, due, due, np.array(done_s))

    def health(self) -> LoadHealth:
        waited_s = self._load.clock() - min(self._waiting_since_s)
        return self._load.health(len(self._waiting_since_s), waited_s)


class _OpenLoop:
    """Requests at given times, sent late by as much as the drivers lag."""

    def __init__(
        self, load: "FakeLoadGenerator", endpoint: FakeEndpoint, arrivals_s: FloatArray
    ) -> None:
        self._load = load
        self._endpoint = endpoint
        self._due_s = load.clock() + arrivals_s
        self._sent_s = load.sent_s(self._due_s + load.lag_ms / 1e3)
        done_s = batch_completions_s(self._sent_s, endpoint.batch_size, load.batch_s(endpoint))
        self._done_s = np.where(done_s <= endpoint.last_answer_s, done_s, math.inf)

    def run_for(self, seconds: float) -> RequestLog:
        begin_s = self._load.clock()
        end_s = min(begin_s + seconds, max(float(self._done_s[-1]), begin_s))
        self._load.clock.now_s = end_s
        new = (self._done_s > begin_s) & (self._done_s <= end_s)
        return self._load.log(
            self._endpoint,
            self._due_s[new],
            self._sent_s[new],
            self._done_s[new],
            all_fail=self._endpoint.open_loop_fails,
        )

    def health(self) -> LoadHealth:
        now_s = self._load.clock()
        waiting_since_s = self._due_s[(self._sent_s <= now_s) & (self._done_s > now_s)]
        oldest_s = now_s - float(waiting_since_s[0]) if waiting_since_s.size else 0.0
        return self._load.health(waiting_since_s.size, oldest_s)


@dataclass
class FakeLoadGenerator:
    """Simulates the batching service under load.

    Attributes:
        clock: Virtual time.
        error: Raised in the midst of the closed loop, once `error_after_s` has come.
        error_after_s: Virtual time of that.
        metrics: What the responses are said to carry.
        offered: The arrivals of each open loop, in order.
        concurrencies: In flight in each closed loop, in order.
        loses_replica: Whether failed requests are said to come from a process that died.
        error_text: What failed requests are said to have said.
        batches_every_s: How often a batch is answered at most, by how often drivers were added;
            the last entry also holds beyond.
        lags_ms: What the drivers' health says, likewise.
        cpu_shares: Likewise.
        open_lags_ms: By how much the drivers are late in open loop, likewise.
        at_most_rps: Rate that the drivers do not exceed in open loop, likewise.
        fails_after: Requests after which `fails` of them fail.
        fails: See `fails_after`.
        can_add: How often drivers can be added.
        n_added: How often they were.
    """

    clock: VirtualClock
    error: BaseException | None = None
    error_after_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    offered: list[FloatArray] = field(default_factory=list[FloatArray])
    concurrencies: list[int] = field(default_factory=list[int])
    n_sent: int = 0
    loses_replica: bool = False
    error_text: str = "the service is down"
    batches_every_s: tuple[float, ...] = (0.0,)
    lags_ms: tuple[float, ...] = (0.0,)
    cpu_shares: tuple[float, ...] = (0.1,)
    open_lags_ms: tuple[float, ...] = (0.0,)
    at_most_rps: tuple[float, ...] = (math.inf,)
    fails_after: int = 0
    fails: int = 0
    can_add: int = 0
    n_added: int = 0
    in_open_loop: bool = False

    @contextmanager
    def closed_loop(self, endpoint: FakeEndpoint, *, concurrency: int) -> Generator[LoadSession]:
        self.in_open_loop = False
        self.concurrencies.append(concurrency)
        yield _ClosedLoop(self, endpoint, concurrency)

    @contextmanager
    def open_loop(
        self, endpoint: FakeEndpoint, *, arrivals_s: FloatArray
    ) -> Generator[LoadSession]:
        self.in_open_loop = True
        self.offered.append(arrivals_s)
        yield _OpenLoop(self, endpoint, arrivals_s)

    @property
    def lag_ms(self) -> float:
        return self._now(self.open_lags_ms if self.in_open_loop else self.lags_ms)

    def _now(self, values: tuple[float, ...]) -> float:
        return values[min(self.n_added, len(values) - 1)]

    def sent_s(self, ready_s: FloatArray) -> FloatArray:
        """When requests are sent, one after the other, that could be at these times."""
        step_s = 1 / self._now(self.at_most_rps)
        steps_s = step_s * np.arange(ready_s.size, dtype=np.float64)
        return np.asarray(np.maximum.accumulate(ready_s - steps_s) + steps_s, dtype=np.float64)

    def batch_s(self, endpoint: FakeEndpoint) -> float:
        return max(endpoint.service_s, self._now(self.batches_every_s))

    def health(self, in_flight: int, oldest_s: float) -> LoadHealth:
        return LoadHealth(
            n_drivers=2**self.n_added,
            lag_ms=self.lag_ms,
            cpu_share=self._now(self.cpu_shares),
            in_flight=in_flight,
            oldest_in_flight_s=oldest_s,
        )

    def add_drivers(self) -> bool:
        if self.n_added >= self.can_add:
            return False
        self.n_added += 1
        return True

    def last_error(self) -> str:
        return self.error_text

    def lost_replica(self) -> bool:
        return self.loses_replica

    def response_metrics(self) -> Mapping[str, float]:
        return self.metrics

    def maybe_raise(self) -> None:
        if self.error is not None and self.clock() >= self.error_after_s:
            raise self.error

    def log(
        self,
        endpoint: FakeEndpoint,
        due_s: FloatArray,
        sent_s: FloatArray,
        done_s: FloatArray,
        *,
        all_fail: bool = False,
    ) -> RequestLog:
        numbers = self.n_sent + 1 + np.arange(done_s.size)
        self.n_sent += done_s.size
        ok = np.full(done_s.size, not all_fail)
        if endpoint.fail_every:
            ok &= numbers % endpoint.fail_every != 0
        ok &= (numbers <= self.fails_after) | (numbers > self.fails_after + self.fails)
        return RequestLog(intended_s=due_s, sent_s=sent_s, done_s=done_s, ok=ok)


def batch_completions_s(due_s: FloatArray, batch_size: int, service_s: float) -> FloatArray:
    """When each request is answered by a server that takes all that wait, up to a full batch.

    Args:
        due_s: Ascending arrivals, shape (n,).
        batch_size: Largest batch.
        service_s: Time of any batch.
    """
    done_s = np.empty_like(due_s)
    first, free_s = 0, -math.inf
    while first < due_s.size:
        start_s = max(free_s, float(due_s[first]))
        waiting = int(np.searchsorted(due_s, start_s, side="right")) - first
        free_s = start_s + service_s
        done_s[first : first + min(waiting, batch_size)] = free_s
        first += min(waiting, batch_size)
    return done_s


@dataclass
class FakeUsage:
    """What a watched endpoint used; also a `DeviceUsage`."""

    memory_gib: float | None = None
    gpu_memory_gib: float | None = None
    gpu_utilization_pct: float | None = None
    gpu_power_w: float | None = None
    out_of_memory_kills: int = 0


@dataclass
class FakeMonitor:
    """Says what the endpoint used, and notes when it watches.

    Attributes:
        usage: What it says.
        events: Every `watch` and `unwatch`, in order.
    """

    usage: FakeUsage = field(default_factory=lambda: FakeUsage(memory_gib=1.5))
    events: list[str] = field(default_factory=list[str])

    @contextmanager
    def watch(self, endpoint: FakeEndpoint) -> Generator[FakeUsage]:
        del endpoint  # every one uses the same
        self.events.append("watch")
        try:
            yield self.usage
        finally:
            self.events.append("unwatch")
