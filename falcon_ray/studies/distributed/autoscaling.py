"""A trial asks for a GPU that is not there: Ray's autoscaler brings its node, and lets it go."""

import time
from collections.abc import Callable

from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.cluster_nodes import ledger_nodes
from falcon_ray.runtime.emulated.nodes import node_with
from falcon_ray.runtime.ledger.contract import NodeType
from falcon_ray.runtime.ray_session import ray_session
from falcon_ray.runtime.testbed.autoscaling_cluster import autoscaling_cluster
from falcon_ray.studies.distributed.fleet import Fleet, configuration_on, plan_of
from falcon_ray.studies.figure import Figure

MEASURED_S = 4.0
IDLE_S = 6.0
GONE_WITHIN_S = 60.0
_POLL_S = 0.2


def figures() -> list[Figure]:
    """One L4 and one T4 that are not there, asked for at once, on a cluster of a head alone."""
    types = [
        NodeType(name=f"worker-{gpu_type.lower()}", shape=node_with(gpu_type), max_nodes=2)
        for gpu_type in ("T4", "L4", "A10G")
    ]
    with (
        autoscaling_cluster(types, idle_timeout_s=IDLE_S) as address,
        ray_session(address) as cluster,
    ):
        serve_apps.start_serve()
        n_before = len(ledger_nodes())
        site = Fleet(cluster, address)
        run = site.run(
            [configuration_on("L4"), configuration_on("T4")],
            parallel=2,
            plan=plan_of(MEASURED_S),
        )
        added = sorted(each or "none" for each in site.gpu_type_by_node().values())
        gone_s = _seconds_until(lambda: not ledger_nodes(), GONE_WITHIN_S)
        serve_apps.end_serve()
    waits_s = [each.observation.times.provision_s for each in run.measured]
    return [
        Figure(
            name="nodes that take trials, before any asks",
            value=n_before,
            at_most=0,
            note=f"can be added: {', '.join(each.name for each in types)}, 2 of each",
        ),
        Figure(
            name="trials measured on nodes that were added", value=len(run.measured), at_least=2
        ),
        Figure(
            name="nodes that were added",
            value=len(added),
            at_least=2,
            at_most=2,
            note=f"{', '.join(added)}, by Ray's autoscaler v2 with its fake provider",
        ),
        Figure(
            name="longest wait for a node",
            value=max(waits_s, default=float("inf")),
            unit="s",
            at_most=GONE_WITHIN_S,
        ),
        Figure(
            name="all of them are let go after",
            value=gone_s,
            unit="s",
            at_most=GONE_WITHIN_S,
            note=f"the autoscaler waits for {IDLE_S:g} s of idleness",
        ),
    ]


def _seconds_until(condition: Callable[[], bool], timeout_s: float) -> float:
    """How long it takes; infinite where it takes too long."""
    start_s = time.monotonic()
    while not condition():
        if time.monotonic() - start_s > timeout_s:
            return float("inf")
        time.sleep(_POLL_S)
    return time.monotonic() - start_s
