"""`serve_apps` uses what Serve keeps private: these fail when an upgrade of Ray moves it."""

import inspect
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray
from ray import serve
from ray._private import worker
from ray.serve.api import _run

from falcon_ray.runtime import serve_apps
from tests.ray.processes import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_app_left")]

APP = "private-serve"


@serve.deployment(graceful_shutdown_timeout_s=0.5, graceful_shutdown_wait_loop_s=0.5)
class WhoAmI:
    def __call__(self) -> dict[str, Any]:
        context = ray.get_runtime_context()
        return {
            "identity": serve.get_replica_context().replica_id.unique_id,
            "pid": os.getpid(),
            "node_id": context.get_node_id(),
        }


@serve.deployment(max_constructor_retry_count=1)
class Broken:
    def __init__(self) -> None:
        raise RuntimeError("there is nothing to serve")


class Onlooker:
    """A process that outlives Serve."""

    def app_names(self) -> tuple[str, ...]:
        return serve_apps.app_names()

    def delete(self, name: str) -> bool:
        return serve_apps.delete(name, timeout_s=30)


@pytest.fixture
def running_app(ray_address: str) -> Iterator[serve_apps.AppState]:  # noqa: ARG001
    serve_apps.deploy(WhoAmI.bind(), APP)
    yield wait_until(lambda: _with_status(APP, "RUNNING"), "the app runs", timeout_s=30)
    serve_apps.delete(APP, timeout_s=30)


def _with_status(name: str, status: str) -> serve_apps.AppState | None:
    state = serve_apps.app_state(name)
    return state if state is not None and state.status == status else None


def test_run_takes_a_name_and_does_not_block_when_told_so() -> None:
    parameters = inspect.signature(_run).parameters
    assert {"name", "route_prefix", "_blocking"} <= set(parameters)


def test_an_app_that_nobody_deployed_has_no_state_and_deleting_it_is_no_error() -> None:
    assert serve_apps.app_state("nobody-deployed-this") is None
    assert serve_apps.delete("nobody-deployed-this", timeout_s=5)


def test_the_state_of_an_app_names_its_replicas(running_app: serve_apps.AppState) -> None:
    (replica,) = running_app.replicas
    said = serve.get_app_handle(APP).remote().result(timeout_s=30)
    assert replica.running
    assert replica.identity == said["identity"]
    assert replica.pid == said["pid"]
    assert replica.node_id == said["node_id"]


def test_a_replica_that_was_killed_does_not_count_as_running(
    running_app: serve_apps.AppState,
) -> None:
    (before,) = running_app.replicas
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    # Serve's controller asks its replicas only every 10 s whether they are well.
    wait_until(lambda: before.identity not in _running(), "the death is noticed", timeout_s=3)
    (after,) = wait_until(_running, "the replica is replaced", timeout_s=30)
    assert after != before.identity


def test_a_replica_that_was_just_killed_is_dead_and_one_that_hangs_is_not(
    running_app: serve_apps.AppState,
) -> None:
    (replica,) = running_app.replicas
    assert replica.pid is not None
    assert serve_apps.dead_replicas([replica]) == frozenset()
    os.kill(replica.pid, signal.SIGSTOP)
    assert serve_apps.dead_replicas([replica]) == frozenset()
    os.kill(replica.pid, signal.SIGKILL)
    assert serve_apps.dead_replicas([replica]) == {replica.identity}


def _running() -> set[str]:
    state = serve_apps.app_state(APP)
    assert state is not None
    return {each.identity for each in state.replicas if each.running}


def test_a_deleted_app_is_gone_when_delete_returns(running_app: serve_apps.AppState) -> None:
    pid = running_app.replicas[0].pid
    assert pid is not None
    assert serve_apps.delete(APP, timeout_s=30)
    assert serve_apps.app_state(APP) is None
    assert APP not in serve.status().applications
    wait_until(lambda: not psutil.pid_exists(pid), "its replica ended", timeout_s=10)


def test_deleting_all_apps_of_a_prefix_leaves_the_others(
    running_app: serve_apps.AppState,  # noqa: ARG001 - it has to run
) -> None:
    serve_apps.delete_all("another-prefix", timeout_s=30)
    assert serve_apps.app_state(APP) is not None
    serve_apps.delete_all(APP[:4], timeout_s=30)
    assert serve_apps.app_state(APP) is None


def test_a_process_that_knew_a_serve_which_was_ended_finds_the_next_one() -> None:
    onlooker: Any = ray.remote(Onlooker).options(num_cpus=0).remote()
    assert ray.get(onlooker.app_names.remote(), timeout=30) == ()
    serve.shutdown()
    assert serve_apps.start_serve(http=True)
    serve_apps.deploy(WhoAmI.bind(), APP)
    assert ray.get(onlooker.app_names.remote(), timeout=30) == (APP,)
    assert ray.get(onlooker.delete.remote(APP), timeout=40)
    assert serve_apps.app_names() == ()
    ray.kill(onlooker)


def test_a_constructor_that_raises_ends_as_failed_with_its_traceback() -> None:
    serve_apps.deploy(Broken.bind(), APP)
    assert serve_apps.app_state(APP) is not None, "deploy returns once the controller knows it"
    try:
        state = wait_until(
            lambda: _with_status(APP, "DEPLOY_FAILED"), "deploying failed", timeout_s=30
        )
    finally:
        serve_apps.delete(APP, timeout_s=30)
    assert "RuntimeError: there is nothing to serve" in state.message


def test_ray_still_prints_its_own_messages_by_the_function_that_is_replaced() -> None:
    parameters = list(inspect.signature(worker.print_to_stdstream).parameters)
    assert parameters[:2] == ["data", "ignore_prefix"]
