"""The ledger on a real cluster: the one actor by its name, and what it acts through."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.errors import ClusterError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.cluster_nodes import ledger_nodes, node_types
from falcon_ray.runtime.ledger.actor import Ledger, LedgerAbout, LedgerParts
from falcon_ray.runtime.ledger.admission import LEASE_S
from falcon_ray.runtime.ledger.client import HEARTBEAT_S
from falcon_ray.runtime.ledger.contract import LedgerNode, NodeType
from falcon_ray.runtime.ledger.janitor import Janitor
from falcon_ray.runtime.ledger.line import LineCounts
from falcon_ray.runtime.ledger.provisioning import PlacementGroups, RayGroups
from falcon_ray.runtime.metrics import LEASES, ClusterMetrics
from falcon_ray.runtime.ray_metrics import RayMetrics

logger = logging.getLogger(__name__)

LEDGER_NAME = "falcon_ledger"
NAMESPACE = "falcon_ray"
TYPES_S = 30.0
"""How old what is known of the autoscaler may be: an administrator changes it, if anybody."""
ABOUT_TIMEOUT_S = 30.0
GONE_POLL_S = 0.05
AT_ONCE = 4096
"""Calls that may wait in the ledger: one of each trial that waits for its resources."""


class ClusterLedger(Ledger):
    """A `Ledger` that sees the cluster which it runs on.

    Args:
        lease_s: See `Ledger`.
    """

    def __init__(self, lease_s: float) -> None:
        parts = LedgerParts(
            watch=ClusterWatch(),
            provisioner=PlacementGroups(RayGroups()),
            janitor=Janitor(_app_names, serve_apps.start_deleting),
            on_counts=_LeaseMetrics(),
        )
        was_here = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(
            parts, lease_s=lease_s, grants_after_s=2 * HEARTBEAT_S if was_here else 0.0
        )


class ClusterWatch:
    """The connected cluster, as a `NodeWatch`.

    Args:
        ask_types: Says which nodes can be added; it takes long, and may fail.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        ask_types: Callable[[], Sequence[NodeType]] = node_types,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask_types = ask_types
        self._clock = clock
        self._types: Sequence[NodeType] = ()
        self._asked_s = -math.inf

    def nodes(self) -> Sequence[LedgerNode]:
        """See `NodeWatch.nodes`."""
        return ledger_nodes()

    def types(self) -> Sequence[NodeType]:
        """See `NodeWatch.types`; those known before where asking fails."""
        if self._clock() - self._asked_s > TYPES_S:
            self._asked_s = self._clock()
            try:
                self._types = self._ask_types()
            except Exception as error:  # noqa: BLE001 - the nodes that are there are known all the same
                logger.warning("asking which nodes can be added failed: %s", error)
        return self._types


class _LeaseMetrics:
    """What the ledger counts, as a metric."""

    def __init__(self) -> None:
        self._metrics = ClusterMetrics(RayMetrics((LEASES,)))

    def __call__(self, counts: Mapping[str, LineCounts]) -> None:
        self._metrics.leases(
            {(line, state): n for line, each in counts.items() for state, n in asdict(each).items()}
        )


def cluster_ledger() -> Any:  # noqa: ANN401 - an actor's handle
    """The cluster's ledger, which is made where there is none.

    It takes no resources, starts again where its process dies, and outlives the search that made
    it: others may hold leases.
    """
    here = ray.get_runtime_context().get_node_id()
    options: dict[str, Any] = {
        "name": LEDGER_NAME,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_concurrency": AT_ONCE,
        # Where a search runs is the head, as a rule, and no node that comes and goes.
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=True),
    }
    return ray.remote(ClusterLedger).options(**options).remote(LEASE_S)


def renew_ledger(version: str) -> None:
    """Have the cluster's ledger be of this version of falcon_ray, where nobody uses another.

    Args:
        version: This one.

    Raises:
        ClusterError: Searches of another version are at work.
    """
    ledger = cluster_ledger()
    try:
        about: LedgerAbout = ray.get(ledger.about.remote(), timeout=ABOUT_TIMEOUT_S)
    except RayError as error:
        logger.info("the ledger does not say what it is: %s", error)  # it may be starting again
        return
    if about.version == version:
        return
    if about.n_searches:
        raise ClusterError(
            f"searches of falcon_ray {about.version} ({about.n_searches}) are at work on this "
            f"cluster, and this is {version}: use that version, or search once they have ended"
        )
    logger.info("a ledger of falcon_ray %s is replaced", about.version)
    ray.kill(ledger)
    _wait_until_gone()


def _wait_until_gone() -> None:
    deadline_s = time.monotonic() + ABOUT_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            ray.get_actor(LEDGER_NAME, NAMESPACE)
        except ValueError:
            return
        time.sleep(GONE_POLL_S)
    raise ClusterError("the ledger of another version of falcon_ray does not end; try again")


def _app_names() -> Iterable[str]:
    return serve_apps.app_names()
