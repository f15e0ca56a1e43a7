"""The wait for an application, in virtual time and on a cluster that the test says."""

from collections.abc import Collection

import pytest

from falcon_ray.errors import InfeasibleError, ReplicaLostError, TrialFailedError
from falcon_ray.runtime.serve_apps import AppState, ReplicaState
from falcon_ray.runtime.serve_start import (
    FIRST_POLL_S,
    LONGEST_POLL_S,
    DiedSilentlyError,
    StartSeams,
    wait_until_running,
)
from tests.fakes import VirtualClock

STARTING = AppState(status="DEPLOYING", message="", replicas=())


def replica(*, pid: int | None = 1) -> ReplicaState:
    return ReplicaState(
        identity="first", running=False, retiring=False, pid=pid, node_id="n1", actor_name="first"
    )


class World:
    """Serve says what it is given from a time on; nodes are lost from a time on."""

    def __init__(self, *told: tuple[float, AppState | None], lost_s: float = 1e9) -> None:
        self._told = told
        self._lost_s = lost_s
        self.clock = VirtualClock()
        self.looks_s: list[float] = []
        self.node_looks_s: list[float] = []

    def app_state(self, name: str) -> AppState | None:
        assert name == "app"
        self.looks_s.append(self.clock())
        return [state for since_s, state in self._told if since_s <= self.clock()][-1]

    def lost_nodes(self, nodes: Collection[str]) -> frozenset[str]:
        self.node_looks_s.append(self.clock())
        return frozenset(nodes) if self.clock() >= self._lost_s else frozenset()

    def wait(
        self, *, pinned_to: Collection[str] = (), timeout_s: float = 120.0, n_replicas: int = 1
    ) -> frozenset[str]:
        return wait_until_running(
            "app",
            n_replicas=n_replicas,
            pinned_to=pinned_to,
            timeout_s=timeout_s,
            seams=StartSeams(
                app_state=self.app_state,
                lost_nodes=self.lost_nodes,
                clock=self.clock,
                pause=self.clock.advance,
            ),
        )


def test_an_application_that_runs_is_seen_on_its_nodes() -> None:
    running = AppState(status="RUNNING", message="", replicas=(replica(),))
    world = World((0.0, None), (0.05, STARTING), (3.0, running))
    assert world.wait(pinned_to=["n1"]) == {"n1"}
    assert world.clock() < 3.0 + LONGEST_POLL_S


@pytest.mark.parametrize("status", ["UNHEALTHY", "DEPLOY_FAILED"])
def test_a_replica_that_is_lost_once_it_has_started_says_nothing_against_the_configuration(
    status: str,
) -> None:
    message = (
        "A replica's health check failed. This deployment will be UNHEALTHY until the replica "
        "recovers or a new deploy happens."
    )
    world = World((0.0, STARTING), (3.0, AppState(status=status, message=message, replicas=())))
    with pytest.raises(ReplicaLostError):
        world.wait()


def test_serve_is_asked_less_and_less_often() -> None:
    world = World((0.0, STARTING))
    with pytest.raises(TrialFailedError):
        world.wait(timeout_s=60.0)
    waits_s = [
        after - before for before, after in zip(world.looks_s, world.looks_s[1:], strict=False)
    ]
    assert waits_s[0] == pytest.approx(FIRST_POLL_S)
    assert waits_s[-1] == pytest.approx(LONGEST_POLL_S)
    # Two a second, and a few more at the start: 60 s / 0.5 s = 120.
    assert 120 <= len(world.looks_s) < 130


def test_an_application_whose_pinned_node_is_lost_fails_at_once() -> None:
    world = World((0.0, STARTING), lost_s=5.0)
    with pytest.raises(TrialFailedError, match="node n1 was lost while the replica started"):
        world.wait(pinned_to=["n1"])
    assert world.clock() < 7.0


def test_pinned_nodes_are_looked_at_once_a_second_at_most_and_others_never() -> None:
    world = World((0.0, STARTING))
    with pytest.raises(TrialFailedError, match="0 of 1 replicas a place within 10 s"):
        world.wait(pinned_to=["n1"], timeout_s=10.0)
    assert 5 <= len(world.node_looks_s) <= 10
    anywhere = World((0.0, STARTING), lost_s=0.0)
    with pytest.raises(TrialFailedError, match="resources are taken by others"):
        anywhere.wait(timeout_s=10.0)
    assert anywhere.node_looks_s == []


def test_a_replica_that_has_a_process_and_does_not_start_in_time_is_infeasible() -> None:
    world = World((0.0, AppState(status="DEPLOYING", message="", replicas=(replica(),))))
    with pytest.raises(InfeasibleError, match="still starting after 10 s"):
        world.wait(timeout_s=10.0)


@pytest.mark.parametrize(
    ("message", "error"),
    [("ValueError: no such model", InfeasibleError), ("ActorDiedError: gone", DiedSilentlyError)],
)
def test_a_failed_deployment_is_told_from_one_that_died_without_a_word(
    message: str, error: type[Exception]
) -> None:
    world = World((0.0, AppState(status="DEPLOY_FAILED", message=message, replicas=())))
    with pytest.raises(error):
        world.wait()
