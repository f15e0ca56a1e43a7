"""Requests by every path to the same small model, and what becomes of their drivers."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn

import aiohttp
import numpy as np
import pytest
import ray
from ray import serve

from falcon_ray.errors import ClusterError, TrialFailedError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.agents.shared import own_agents
from falcon_ray.runtime.load.generators import InsideLoad, handle_load, http_load
from falcon_ray.runtime.load.placement import DriverPool
from falcon_ray.runtime.load.transport import HttpBody
from falcon_ray.runtime.model_reference import ModelReference, Sample
from falcon_ray.runtime.monitors.worker_kills import asking
from falcon_ray.runtime.ray_session import live_nodes
from falcon_ray.runtime.serve_backend import AppEndpoint, ServeBackend
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.runtime.testbed.leftovers import live_actors
from falcon_ray.runtime.torch_model import example_inputs
from falcon_ray.space.configuration import Configuration
from falcon_ray.trial.protocols import LoadSession, Reservation
from falcon_ray.trial.requests import RequestLog
from tests.ray.conftest import target_reference
from tests.ray.processes import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_app_left")]

APP = "falcon-test-load"
BATCH = 4
MODEL = ModelReference(target_reference("tiny.py", "tiny"))
TARGET = ModelTarget(MODEL)


@contextmanager
def _deployed(*, replicas: int = 1) -> Iterator[AppEndpoint]:
    configuration = Configuration(
        {"cpu_cores": 1, "batch_size": BATCH, "batch_wait_ms": 0, "replicas": replicas}
    )
    backend = ServeBackend(
        TARGET,
        app_name=APP,
        nodes=live_nodes(),
        timeout_s=60,
        ask_kills=asking(_no_other_node),
        http=True,
    )
    with backend.deploy(configuration, Reservation()) as endpoint:
        yield endpoint


def _no_other_node(node: str) -> NoReturn:
    raise AssertionError(f"{node} is not this node")


@contextmanager
def _drivers() -> Iterator[DriverPool]:
    with own_agents(ray.put(_sample())) as agents:
        yield DriverPool(agents, APP, concurrency=2 * BATCH)


def _sample() -> Sample:
    return example_inputs(MODEL, 1).samples()[0]


def _requests(session: LoadSession, *, at_least: int, within_s: float = 20.0) -> RequestLog:
    """What a session brings, once that is enough."""
    log, deadline_s = RequestLog.empty(), time.monotonic() + within_s
    while log.n < at_least and time.monotonic() < deadline_s:
        log = RequestLog.concat([log, session.run_for(0.2)])
    assert log.n >= at_least
    return log


def _rate(log: RequestLog) -> float:
    return log.n / float(log.done_s.max() - log.sent_s.min())


def _post(url: str, body: HttpBody) -> list[object]:
    async def answer() -> list[object]:
        headers = {"Content-Type": body.content_type}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=body.content, headers=headers) as response,
        ):
            assert response.status == 200, await response.text()
            return (await response.json())["outputs"]

    return asyncio.run(answer())


def test_every_path_loads_the_same_model_and_leaves_nothing() -> None:
    body = TARGET.http_body(_sample())
    with _deployed() as endpoint, _drivers() as drivers:
        rates: dict[str, float] = {}
        loads = {
            "handle": handle_load(drivers),
            "http": http_load(drivers, body),
            "replica": InsideLoad(drivers),
        }
        for path, load in loads.items():
            with load.closed_loop(endpoint, concurrency=endpoint.concurrency) as session:
                _requests(session, at_least=20)  # what is slow at first
                log = _requests(session, at_least=50)
                health = session.health()
            assert log.ok.all(), load.last_error()
            assert (log.latency_ms > 0).all()
            assert health.n_drivers == 1
            assert health.in_flight <= endpoint.concurrency
            assert load.last_error() == ""
            assert not load.lost_replica()
            rates[path] = _rate(log)
        # Inside, nothing but the model and its queue takes time.
        assert rates["replica"] > max(rates["handle"], rates["http"])

        handle = serve.get_app_handle(APP)
        by_handle = handle.predict.remote(_sample()).result(timeout_s=30)
        by_http = _post(endpoint.url, body)
        for one, other in zip(by_handle, by_http, strict=True):
            np.testing.assert_allclose(np.asarray(other), one, rtol=1e-6)
    assert [each for each in live_actors() if each.class_name == "LoadDriver"] == []


def test_an_open_loop_keeps_its_schedule_and_ends_with_its_last_request() -> None:
    arrivals_s = np.arange(60) / 50.0
    with _deployed() as endpoint, _drivers() as drivers:
        load = handle_load(drivers)
        with load.closed_loop(endpoint, concurrency=1) as session:
            _requests(session, at_least=10)
        with load.open_loop(endpoint, arrivals_s=arrivals_s) as session:
            log = _requests(session, at_least=arrivals_s.size)
            start_s = time.monotonic()
            assert session.run_for(20.0).n == 0
            assert time.monotonic() - start_s < 5, "the session waited though all had ended"
    due_s = np.sort(log.intended_s)
    np.testing.assert_allclose(due_s - due_s[0], arrivals_s, atol=2e-3)  # a timer's own
    assert (log.lag_ms >= 0).all()
    assert np.median(log.lag_ms) < 20  # one period is 20 ms


def test_both_of_two_replicas_are_loaded_from_inside_at_once() -> None:
    with _deployed(replicas=2) as endpoint, _drivers() as drivers:
        load = InsideLoad(drivers)
        for _ in range(2):  # and again, though each was loaded before
            with load.closed_loop(endpoint, concurrency=endpoint.concurrency) as session:
                log = _requests(session, at_least=100)
                health = session.health()
            assert log.ok.all(), load.last_error()
            assert health.n_drivers == 2
        with load.open_loop(endpoint, arrivals_s=np.arange(40) / 100) as session:
            assert _requests(session, at_least=40).ok.all()


def test_a_driver_that_was_killed_fails_the_trial_and_is_replaced_in_the_next() -> None:
    with _deployed() as endpoint, _drivers() as drivers:
        load = handle_load(drivers)
        with ExitStack() as stack:
            # It cannot be stopped either, which says less.
            stack.enter_context(pytest.raises(TrialFailedError, match="collecting the load failed"))
            session = stack.enter_context(load.closed_loop(endpoint, concurrency=2))
            _requests(session, at_least=1)
            (driver,) = drivers.place([])
            ray.kill(driver.actor)
            session.run_for(0.1)
        assert not load.lost_replica()
        with load.closed_loop(endpoint, concurrency=2) as session:
            assert _requests(session, at_least=1).ok.all()


def test_drivers_start_where_the_trial_has_its_places_and_not_before() -> None:
    (here,) = (node["NodeID"] for node in ray.nodes())
    wait_until(lambda: _n_drivers() == 0, "those of other tests are gone", timeout_s=10)
    with _drivers() as drivers:
        assert _n_drivers() == 0
        drivers.start_on([here])
        wait_until(lambda: _n_drivers() == 1, "the driver is known to Ray", timeout_s=10)
        assert [each.node for each in drivers.place([here])] == [here]
        assert _n_drivers() == 1


def _n_drivers() -> int:
    return sum(each.class_name == "LoadDriver" for each in live_actors())


def test_more_drivers_share_the_load_from_the_next_session_on() -> None:
    with _deployed() as endpoint, _drivers() as drivers:
        load = handle_load(drivers)
        assert load.add_drivers()
        with load.closed_loop(endpoint, concurrency=4) as session:
            _requests(session, at_least=1)
            assert session.health().n_drivers == 2
        # Two CPUs run at most eight drivers.
        assert [load.add_drivers() for _ in range(3)] == [True, True, False]
        assert not InsideLoad(drivers).add_drivers()


def test_a_serve_with_a_proxy_serves_those_who_need_none() -> None:
    assert not serve_apps.start_serve()
    assert not serve_apps.start_serve(http=True)


def test_a_serve_without_a_proxy_cannot_be_measured_by_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve_apps, "_proxy_address", lambda: None)
    with pytest.raises(ClusterError, match="other searches on it have ended"):
        serve_apps.start_serve(http=True)
