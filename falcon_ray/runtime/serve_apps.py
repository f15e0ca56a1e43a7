"""The few things we need from Serve beyond its public functions, in one place.

`serve.run` has no time-out and polls once a second, and the public status names no replicas.
Everything private to Serve that falcon_ray touches is called here and nowhere else, and the
tests notice when a Ray upgrade moves it.
"""

import logging
import pickle
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.serve._private.client import ServeControllerClient
from ray.serve._private.common import RequestMetadata
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.api import _run
from ray.serve.context import _disconnect, _get_global_client
from ray.serve.exceptions import RayServeException

from falcon_ray.errors import ClusterError
from falcon_ray.runtime.node_health import lost_nodes

logger = logging.getLogger(__name__)

POLL_S = 0.05
PROBE_TIMEOUT_S = 2.0
LOOPBACK = "127.0.0.1"
RAY_WORKER_PORTS = range(10002, 20000)


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica as Serve's controller sees it.

    Attributes:
        identity: A replacement has another one.
        running: Whether it serves, and its process and its node are there, as far as Ray knows.
        retiring: Whether autoscaling ends it, which it lives to see.
        pid: Of its process; None until it has one.
        node_id: Of the Ray node that it is on; empty until it has one.
        actor_name: Of its actor, in Serve's namespace.
    """

    identity: str
    running: bool
    retiring: bool
    pid: int | None
    node_id: str
    actor_name: str


@dataclass(frozen=True, slots=True)
class AppState:
    """One application as Serve's controller sees it."""

    status: str
    message: str
    replicas: tuple[ReplicaState, ...]


def start_serve(*, http: bool = False) -> bool:
    """Start Serve where it does not run yet: without a proxy, or with one on loopback only.

    Args:
        http: Whether applications have to answer HTTP.

    Returns:
        Whether it was started, and so is ours to end.

    Raises:
        ClusterError: It runs without the proxy that is needed.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    client = _client()
    if client is not None:
        if http and _proxy_address() is None:
            raise ClusterError(
                "Serve already runs on this cluster, without an HTTP proxy; wait until the other "
                "searches on it have ended, or measure with load_path handle"
            )
        return False
    logging_config = {"log_level": "WARNING"}
    if not http:
        serve.start(proxy_location="Disabled", logging_config=logging_config)
        return True
    # Drivers send to their own node's proxy. Nodes of one machine would share its port.
    addresses = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    serve.start(
        proxy_location="EveryNode" if len(addresses) > 1 else "HeadOnly",
        http_options={"host": LOOPBACK, "port": _free_port()},
        logging_config=logging_config,
    )
    return True


def _client(*, must_run: bool = False) -> ServeControllerClient | None:
    """A client of the Serve that runs now, or None where none does.

    Serve keeps one for as long as a process works for the same job, also past the end of what it
    is a client of. A process that outlives searches, as the ledger's does, would ask for ever a
    controller that one of them has ended.

    Raises:
        RayServeException: None runs, and one must.
    """
    client = _get_global_client(raise_if_no_controller_running=must_run)
    if client is None:
        return None
    try:
        ray.get(client._controller.check_alive.remote())  # noqa: SLF001 - Serve has no other way
    except RayActorError as error:
        logger.info("connecting to Serve again: %s", type(error).__name__)
        _disconnect()
        return _get_global_client(raise_if_no_controller_running=must_run)
    return client


def end_serve() -> None:
    """End Serve where nothing is deployed: one without proxies would be in others' way."""
    if not app_names():
        serve.shutdown()


def deploy(app: serve.Application, name: str, *, http: bool = False) -> None:
    """Hand an application to the controller and return at once.

    Args:
        app: What to deploy.
        name: Its name.
        http: Whether it answers at `http_url(name)`.
    """
    _run(app, name=name, route_prefix=f"/{name}" if http else None, _blocking=False)


def http_url(name: str) -> str:
    """Where an application that was deployed for HTTP answers.

    Raises:
        ClusterError: Serve has no proxy.
    """
    address = _proxy_address()
    if address is None:
        raise ClusterError("Serve runs without an HTTP proxy; measure with load_path handle")
    return f"{address}/{name}"


def _proxy_address() -> str | None:
    client = _client()
    if client is None:
        return None
    details, options = client.get_serve_details(), client.http_config
    if details.get("proxy_location") in {None, "Disabled"}:
        return None
    everywhere = {"0.0.0.0", "::", "localhost"}  # noqa: S104 - only compared with
    host = LOOPBACK if options.host in everywhere else options.host
    scheme = "https" if options.ssl_keyfile else "http"
    return f"{scheme}://{host}:{options.port}{options.root_path}"


def _free_port() -> int:
    """A port of loopback that is free now, and none of those that Ray gives to its workers."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in RAY_WORKER_PORTS:
            return port


def app_state(name: str) -> AppState | None:
    """State of an application, or None where Serve does not know it."""
    client = _client(must_run=True)
    if client is None:
        return None
    applications = client.get_serve_details()["applications"]
    if name not in applications:
        return None
    app = applications[name]
    deployments = list(app["deployments"].values())
    messages = [app["message"], *(each["message"] for each in deployments)]
    return AppState(
        status=_text(app["status"]),
        message="\n".join(message for message in messages if message),
        replicas=tuple(_replica_states(deployments)),
    )


def replicas_of(state: AppState | None) -> tuple[ReplicaState, ...]:
    """The replicas of an application; none where Serve does not know it."""
    return () if state is None else state.replicas


def _replica_states(deployments: Sequence[Mapping[str, Any]]) -> Iterator[ReplicaState]:
    replicas = [(each, replica) for each in deployments for replica in each["replicas"]]
    # The controller may notice a death seconds later.
    lost = lost_nodes(
        {
            replica["node_id"]
            for _, replica in replicas
            if replica.get("node_id") and _text(replica["state"]) == "RUNNING"
        }
    )
    for deployment, replica in replicas:
        state, node_id = _text(replica["state"]), replica.get("node_id") or ""
        may_retire = bool(deployment["deployment_config"].get("autoscaling_config"))
        there = (
            (state == "RUNNING" or (may_retire and state == "STOPPING"))
            and node_id not in lost
            and _has_actor(replica["actor_name"])
        )
        yield ReplicaState(
            identity=replica["replica_id"],
            running=there and state == "RUNNING",
            retiring=there and state == "STOPPING",
            pid=replica.get("pid"),
            node_id=node_id,
            actor_name=replica["actor_name"],
        )


def dead_replicas(replicas: Sequence[ReplicaState]) -> frozenset[str]:
    """Identities of the replicas whose process is gone, by asking each of them.

    Serve notices a death at its next health check, Ray when the node has told; a call to a dead
    process fails at once. The call is answered by a thread of its own, whatever the replica
    computes. One that does not answer in time hangs, which is no death.
    """
    asked: dict[Any, str] = {}
    dead: set[str] = set()
    for each in replicas:
        try:
            actor: Any = ray.get_actor(each.actor_name, namespace=SERVE_NAMESPACE)
        except ValueError:
            dead.add(each.identity)
            continue
        asked[actor.get_num_ongoing_requests.remote()] = each.identity
    if not asked:
        return frozenset(dead)
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_TIMEOUT_S)
    for each in answered:
        try:
            ray.get(each)
        except (RayActorError, OutOfMemoryError):
            dead.add(asked[each])
    return frozenset(dead)


def call_replica(actor_name: str, method: str, *arguments: object) -> Any:  # noqa: ANN401 - a reference
    """Call a method of one replica, past Serve's router, which chooses among them.

    Raises:
        RayActorError: There is no such replica.
    """
    request_id = secrets.token_hex(8)
    metadata = RequestMetadata(
        request_id=request_id, internal_request_id=request_id, call_method=method
    )
    try:
        replica: Any = ray.get_actor(actor_name, namespace=SERVE_NAMESPACE)
    except ValueError:
        raise RayActorError(error_msg=f"the replica {actor_name} is gone") from None
    return replica.handle_request.remote(pickle.dumps(metadata), *arguments)


def _text(status: object) -> str:
    """A status of Serve, which is a member of an enum in some places and its value in others."""
    return str(getattr(status, "value", status))


def _has_actor(actor_name: str) -> bool:
    """Whether Ray knows a replica's actor."""
    try:
        ray.get_actor(actor_name, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def app_names() -> tuple[str, ...]:
    """Names of all applications; none where Serve does not run."""
    client = _client()
    return () if client is None else tuple(client.get_serve_details()["applications"])


def start_deleting(name: str) -> None:
    """Delete an application, and do not wait until it is gone."""
    client = _client()
    if client is not None:
        client.delete_apps([name], blocking=False)


def delete(name: str, *, timeout_s: float) -> bool:
    """Delete an application and wait until it is gone; whether it went in time."""
    client = _client(must_run=True)
    if client is None:
        return True
    client.delete_apps([name], blocking=False)
    deadline = time.monotonic() + timeout_s
    while app_state(name) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def delete_one(name: str, *, timeout_s: float) -> None:
    """Delete an application, whether or not it is there; log what stays."""
    try:
        if not delete(name, timeout_s=timeout_s):
            logger.warning("the Serve app %s is still there; delete it by hand", name)
    except (RayError, RayServeException) as error:
        logger.warning("deleting the Serve app %s failed: %s", name, error)


def delete_all(prefix: str, *, timeout_s: float) -> None:
    """Delete every application whose name starts with `prefix`; log what stays."""
    try:
        names = [name for name in app_names() if name.startswith(prefix)]
    except (RayError, RayServeException) as error:
        logger.warning("looking for left-over Serve apps failed: %s", error)
        return
    for name in names:
        delete_one(name, timeout_s=timeout_s)
