"""Load through a deployment handle, made by driver actors on the node that runs the trial.

Each driver is one asyncio process. Latency is taken from the intended send time, on the
driver's own monotonic clock. What a rate means or when it has been long enough is not decided
here.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.runtime.faults import ray_failures
from falcon_ray.runtime.references import Reference, load_reference
from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.protocols import Endpoint, LoadSession
from falcon_ray.trial.requests import RequestLog

CALL_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 30.0
CLIENTS_PER_DRIVER = 128


class ServeEndpoint(Endpoint, Protocol):
    """An endpoint that is a Serve application."""

    @property
    def app_name(self) -> str:
        """Name of the application."""
        ...

    @property
    def method(self) -> str:
        """Method of the ingress that answers a request through a handle."""
        ...


class _Records:
    """Times of completed requests, handed over as plain arrays."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float, bool]] = []

    def take(self) -> FloatArray:
        rows, self.rows = self.rows, []
        return np.asarray(rows, dtype=np.float64).reshape(-1, 4)


class LoadDriver:
    """Sends one example request again and again; an actor."""

    def __init__(self, request: Any, response_metrics: Reference | None = None) -> None:  # noqa: ANN401
        self._request = request
        self._read_metrics = load_reference(response_metrics) if response_metrics else None
        self._metric_sums: dict[str, float] = {}
        self._n_read = 0
        self._records = _Records()
        self._clients: list[asyncio.Task[None]] = []
        self._last_error = ""
        self._lost_replica = False

    async def ready(self) -> None:
        """Return once the process is up."""

    async def start_closed_loop(self, app: str, method: str, concurrency: int) -> None:
        """Keep `concurrency` requests in flight until `stop`."""
        self._lost_replica = False
        handle = _method_handle(app, method)

        async def client() -> None:
            while True:
                sent = time.perf_counter()
                ok = await self._send(handle)
                self._records.rows.append((sent, sent, time.perf_counter(), ok))

        self._clients = [asyncio.create_task(client()) for _ in range(concurrency)]

    async def collect(self, seconds: float) -> FloatArray:
        """Wait, then return the requests completed since the last call, shape (n, 4)."""
        await asyncio.sleep(seconds)
        return self._records.take()

    async def stop(self) -> None:
        """End the closed loop; requests in flight are given up."""
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._clients = []
        self._records.take()

    async def open_loop(
        self, app: str, method: str, arrivals_s: FloatArray, timeout_s: float
    ) -> FloatArray:
        """Send at the intended times and wait for every answer, or for the time-out."""
        handle = _method_handle(app, method)
        start = time.perf_counter() + 0.01
        records = _Records()

        async def request(intended: float) -> None:
            sent = time.perf_counter()
            try:
                ok = await asyncio.wait_for(self._send(handle), timeout_s)
            except TimeoutError:
                ok, self._last_error = False, f"no answer within {timeout_s:g} s"
            records.rows.append((intended, sent, time.perf_counter(), ok))

        tasks: list[asyncio.Task[None]] = []
        for arrival_s in arrivals_s:
            intended = start + float(arrival_s)
            if (wait := intended - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(request(intended)))
        await asyncio.gather(*tasks)
        return records.take()

    async def last_error(self) -> str:
        """What the latest failed request said."""
        return self._last_error

    async def lost_replica(self) -> bool:
        """Whether a request failed because its replica's process died."""
        return self._lost_replica

    async def response_metrics(self) -> dict[str, float]:
        """Means of the declared response metrics over all answers read so far."""
        return {name: total / self._n_read for name, total in self._metric_sums.items()}

    async def _send(self, handle: Any) -> bool:  # noqa: ANN401 - a DeploymentHandle
        try:
            response = await handle.remote(self._request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the target may raise anything
            self._last_error = f"{type(error).__name__}: {_last_line(str(error))}"
            self._lost_replica |= isinstance(error, RayActorError)
            await asyncio.sleep(0.01)
            return False
        if self._read_metrics is not None:
            for name, value in self._read_metrics(response).items():
                self._metric_sums[name] = self._metric_sums.get(name, 0.0) + float(value)
            self._n_read += 1
        return True


class HandleLoadGenerator:
    """Load by driver actors; starts them at once, so that they are up when the app is.

    Args:
        request: The example request, sent as it is with every call.
        concurrency: Requests in flight that have to be supported; sets the number of drivers.
        response_metrics: A function from one response to numbers, or None.
    """

    def __init__(
        self,
        request: Any,  # noqa: ANN401 - whatever the target takes
        *,
        concurrency: int,
        response_metrics: Reference | None = None,
    ) -> None:
        n_drivers = max(1, -(-concurrency // CLIENTS_PER_DRIVER))
        here = ray.get_runtime_context().get_node_id()
        remote = ray.remote(LoadDriver).options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
        )
        # Any: an actor's handle has the class's methods with `remote` on each.
        self._drivers: list[Any] = [
            remote.remote(request, response_metrics) for _ in range(n_drivers)
        ]

    def close(self) -> None:
        """End the driver processes."""
        for driver in self._drivers:
            ray.kill(driver)

    @contextmanager
    def closed_loop(self, endpoint: ServeEndpoint, *, concurrency: int) -> Iterator[LoadSession]:
        """See `LoadGenerator.closed_loop`."""
        shares = _shares(concurrency, len(self._drivers))
        self._gather(
            "starting the load",
            [
                driver.start_closed_loop.remote(endpoint.app_name, endpoint.method, share)
                for driver, share in zip(self._drivers, shares, strict=True)
            ],
        )
        try:
            yield _ClosedLoop(self)
        finally:
            self._gather("stopping the load", [driver.stop.remote() for driver in self._drivers])

    def collect(self, seconds: float) -> RequestLog:
        """Requests that all drivers completed in the next `seconds`."""
        parts = self._gather(
            "collecting the load", [driver.collect.remote(seconds) for driver in self._drivers]
        )
        return RequestLog.concat([_log(part) for part in parts])

    def open_loop(self, endpoint: ServeEndpoint, *, arrivals_s: FloatArray) -> RequestLog:
        """See `LoadGenerator.open_loop`; arrivals are dealt to the drivers in turn."""
        n = len(self._drivers)
        parts = self._gather(
            "offering the load",
            [
                driver.open_loop.remote(
                    endpoint.app_name, endpoint.method, arrivals_s[i::n], REQUEST_TIMEOUT_S
                )
                for i, driver in enumerate(self._drivers)
            ],
            extra_s=float(arrivals_s[-1]) + REQUEST_TIMEOUT_S if len(arrivals_s) else 0.0,
        )
        return RequestLog.concat([_log(part) for part in parts])

    def last_error(self) -> str:
        """See `LoadGenerator.last_error`."""
        said = self._gather(
            "asking the drivers", [driver.last_error.remote() for driver in self._drivers]
        )
        return next((each for each in said if each), "")

    def lost_replica(self) -> bool:
        """See `LoadGenerator.lost_replica`."""
        said = [driver.lost_replica.remote() for driver in self._drivers]
        return any(self._gather("asking the drivers", said))

    def response_metrics(self) -> Mapping[str, float]:
        """See `LoadGenerator.response_metrics`; the first driver speaks for all."""
        return self._gather("asking a driver", [self._drivers[0].response_metrics.remote()])[0]

    def _gather(self, doing: str, calls: list[Any], *, extra_s: float = 0.0) -> list[Any]:
        with ray_failures(doing):
            return ray.get(calls, timeout=CALL_TIMEOUT_S + extra_s)


class _ClosedLoop:
    def __init__(self, generator: HandleLoadGenerator) -> None:
        self._generator = generator

    def run_for(self, seconds: float) -> RequestLog:
        return self._generator.collect(seconds)


def _method_handle(app: str, method: str) -> Any:  # noqa: ANN401 - a DeploymentHandle
    handle = serve.get_app_handle(app)
    return handle if method == "__call__" else getattr(handle, method)


def _shares(total: int, n: int) -> list[int]:
    return [total // n + (i < total % n) for i in range(n)]


def _log(rows: FloatArray) -> RequestLog:
    return RequestLog(
        intended_s=rows[:, 0], sent_s=rows[:, 1], done_s=rows[:, 2], ok=rows[:, 3].astype(bool)
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
