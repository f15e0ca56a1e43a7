"""What can go wrong in a trial, each made to happen for real, and what the trial should say then.

A fact about the configuration teaches the search and says which kind it is; an accident of the
infrastructure teaches nothing. The module knows both by the observation alone.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from falcon_ray.errors import InfeasibleCause
from falcon_ray.runtime.testbed.fault_injection import (
    driver_pids,
    kill_driver,
    kill_replica,
    once_starting,
    replica_pids,
    second_node,
    starved,
    taken_cpus,
)
from falcon_ray.runtime.testbed.fault_site import PLAN, FaultSite
from falcon_ray.runtime.testbed.faulty_targets import MEMORY_GROUP, MEMORY_GROUP_BYTES
from falcon_ray.runtime.testbed.memory_cgroup import limited_memory
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.studies.measurement.fault_table import Expected
from falcon_ray.trial.steady_state import PrecisionRule

MAX_ATTEMPTS = 3
REFUSED_WITHIN_S = 1.0
MEASURING = "measuring"

UNANSWERED = r"no request was answered (for|in) [\d.]+ s|was not answered for [\d.]+ s"
CALL_FAILED = (
    r"(collecting the load|asking [\w ]+|(starting|stopping) the load)"
    r"( failed: \w*(Died|Unavailable|Crashed)\w*| timed out)"
)
"""What a call to an actor says whose process is gone."""

_THREE_ATTEMPTS = replace(PLAN, max_attempts=MAX_ATTEMPTS)
_LONGER = replace(PLAN, precision=PrecisionRule(min_s=14.0, max_s=15.0))


class NotHereError(Exception):
    """The fault cannot be made on this machine; says why."""


@dataclass(frozen=True, slots=True)
class FaultCase:
    """One way to go wrong.

    Attributes:
        name: For people.
        expected: How the trial should end.
        run: Runs a trial to which it happens; raises `NotHereError` where it cannot be made.
        needs_second_node: Whether a node is started for it, which takes a while to be gone.
    """

    name: str
    expected: Expected
    run: Callable[[FaultSite], Observation]
    needs_second_node: bool = False


def _infeasible(says: str, cause: InfeasibleCause = InfeasibleCause.OTHER) -> Expected:
    return Expected(status=TrialStatus.INFEASIBLE, cause=cause, says=says)


def _failed(says: str) -> Expected:
    return Expected(status=TrialStatus.FAILED, says=says)


def _target(target: str, *, timeout_s: float = 60.0) -> Callable[[FaultSite], Observation]:
    return lambda site: site.run(target, timeout_s=timeout_s)


def _in_memory_group(target: str) -> Callable[[FaultSite], Observation]:
    def run(site: FaultSite) -> Observation:
        with limited_memory(MEMORY_GROUP, limit_bytes=MEMORY_GROUP_BYTES) as is_limited:
            if not is_limited:
                raise NotHereError("no control group with a memory limit can be made here")
            return site.run(target)

    return run


def _during(phase: str, act: Callable[[], None]) -> Callable[[str], None]:
    """Tells when to act: the first time that `phase` begins."""
    acted: list[str] = []

    def on_phase(began: str) -> None:
        if began == phase and not acted:
            acted.append(began)
            act()

    return on_phase


def _replica_killed(site: FaultSite) -> Observation:
    name = site.new_app_name()
    return site.run(
        "healthy", app_name=name, on_phase=_during(MEASURING, lambda: kill_replica(name))
    )


def _killed_once(site: FaultSite) -> Observation:
    name = site.new_app_name()
    return site.run(
        "healthy",
        app_name=name,
        plan=_THREE_ATTEMPTS,
        on_phase=_during(MEASURING, lambda: kill_replica(name)),
    )


def _killed_while_starting(site: FaultSite) -> Observation:
    name = site.new_app_name()
    with once_starting(name, lambda: kill_replica(name), timeout_s=30.0):
        return site.run("healthy", app_name=name)


def _crashing(site: FaultSite) -> Observation:
    return site.run("crashing", plan=_THREE_ATTEMPTS)


def _node_killed_while_measuring(site: FaultSite) -> Observation:
    with second_node() as node:
        return site.run("healthy", cpu_cores=node.cpus, on_phase=_during(MEASURING, node.kill))


def _node_killed_while_deploying(site: FaultSite) -> Observation:
    name = site.new_app_name()
    with second_node() as node, once_starting(name, node.kill, timeout_s=30.0):
        return site.run("hanging", app_name=name, cpu_cores=node.cpus)


def _resources_taken(site: FaultSite) -> Observation:
    with taken_cpus():
        return site.run("healthy", timeout_s=1.0, plan=_THREE_ATTEMPTS)


def _driver_starved(site: FaultSite) -> Observation:
    with _starving() as starve:
        return site.run("healthy", on_phase=_during(MEASURING, starve))


def _replica_added(site: FaultSite) -> Observation:
    name = site.new_app_name()
    n_replicas: list[int] = []
    observation = site.run(
        "autoscaled",
        app_name=name,
        plan=_LONGER,
        on_phase=lambda _: n_replicas.append(len(replica_pids(name))),
    )
    if observation.status is TrialStatus.MEASURED and max(n_replicas) < 2:
        raise NotHereError("no replica was added in time")
    return observation


@contextmanager
def _starving() -> Iterator[Callable[[], None]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(starved(driver_pids(), stopped_s=0.2, running_s=0.02))


MEMORY, TIMEOUT = InfeasibleCause.MEMORY, InfeasibleCause.TIMEOUT

CASES: tuple[FaultCase, ...] = (
    FaultCase(
        "constructor raises", _infeasible("the weights are nowhere to be found"), _target("raising")
    ),
    FaultCase("constructor exits", _infeasible("ended without an error"), _target("exiting")),
    FaultCase(
        "constructor hangs",
        _infeasible("still starting after 6 s", TIMEOUT),
        _target("hanging", timeout_s=6.0),
    ),
    FaultCase(
        "out of memory at load, by the process's limit",
        _infeasible("out of memory .*tried to allocate", MEMORY),
        _target("hungry"),
    ),
    FaultCase(
        "out of memory at load, killed by the kernel",
        _infeasible("out of memory", MEMORY),
        _in_memory_group("killed"),
    ),
    FaultCase(
        "out of memory under traffic, by the process's limit",
        _infeasible("tried to allocate", MEMORY),
        _target("growing"),
    ),
    FaultCase(
        "out of memory under traffic, killed by the kernel",
        _infeasible("memory", MEMORY),
        _in_memory_group("growing_until_killed"),
    ),
    FaultCase(
        "a forward hangs from the first request on",
        _infeasible(UNANSWERED, TIMEOUT),
        _target("hanging_at_once"),
    ),
    FaultCase(
        "a forward hangs while it is measured",
        _infeasible(UNANSWERED, TIMEOUT),
        _target("hanging_later"),
    ),
    FaultCase(
        "every request fails", _infeasible("the model broke in service"), _target("breaking")
    ),
    FaultCase(
        "the model ends its process under traffic, every time",
        replace(
            _infeasible(f"its process died in each of {MAX_ATTEMPTS} attempts; .*replica"),
            attempts=MAX_ATTEMPTS,
        ),
        _crashing,
    ),
    FaultCase(
        "no node can hold the configuration",
        replace(_infeasible("no node can hold"), within_s=REFUSED_WITHIN_S),
        lambda site: site.run("healthy", cpu_cores=4096),
    ),
    FaultCase("a replica is killed while it is measured", _failed("replica"), _replica_killed),
    FaultCase(
        "a replica is killed once and tried again",
        Expected(status=TrialStatus.MEASURED, attempts=2),
        _killed_once,
    ),
    FaultCase(
        "a replica is killed once while it starts",
        Expected(status=TrialStatus.MEASURED),
        _killed_while_starting,
    ),
    FaultCase(
        "a node is killed while measuring",
        _failed(f"node .* was lost during the trial|a replica died|{CALL_FAILED}"),
        _node_killed_while_measuring,
        needs_second_node=True,
    ),
    FaultCase(
        "a node is killed while deploying",
        _failed("node .* was lost while the replica started"),
        _node_killed_while_deploying,
        needs_second_node=True,
    ),
    FaultCase(
        "others hold the resources",
        replace(_failed("taken by others"), attempts=MAX_ATTEMPTS),
        _resources_taken,
    ),
    FaultCase("a load driver gets no CPU", _failed("client-limited"), _driver_starved),
    FaultCase(
        "a load driver is killed",
        _failed(CALL_FAILED),
        lambda site: site.run("healthy", on_phase=_during(MEASURING, kill_driver)),
    ),
    FaultCase(
        "autoscaling adds a replica",
        Expected(status=TrialStatus.MEASURED),
        _replica_added,
    ),
)
"""All that happen to one trial; a search whose own process is killed is `killed_search`."""
