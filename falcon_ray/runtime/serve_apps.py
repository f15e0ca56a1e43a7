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
from ray.exceptions import RayActorError, RayError
from ray.serve._private.common import RequestMetadata
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.api import _run
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from falcon_ray.errors import ClusterError
from falcon_ray.runtime.node_health import lost_nodes

logger = logging.getLogger(__name__)

POLL_S = 0.05
LOOPBACK = "127.0.0.1"
RAY_WORKER_PORTS = range(10002, 20000)


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica as Serve's controller sees it.

    Attributes:
        identity: A replacement has another one.
        running: Whether it serves, and its process and its node are there.
        pid: Of its process; None until it has one.
        node_id: Of the Ray node that it is on; empty until it has one.
        actor_name: Of its actor, in Serve's namespace.
    """

    identity: str
    running: bool
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
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        if http and _proxy_address() is None:
            raise ClusterError(
                "Serve already runs on this cluster, without an HTTP proxy; end it "
                "(`serve shutdown`), or measure with load_path handle"
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


def end_serve() -> None:
    """End Serve where nothing is deployed: one without proxies would be in others' way."""
    if not serve.status().applications:
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
    client = _get_global_client(raise_if_no_controller_running=False)
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
    client = _get_global_client()
    if client is None:
        return None
    applications = client.get_serve_details()["applications"]
    if name not in applications:
        return None
    app = applications[name]
    deployments = list(app["deployments"].values())
    messages = [app["message"], *(each["message"] for each in deployments)]
    replicas = [replica for each in deployments for replica in each["replicas"]]
    return AppState(
        status=_text(app["status"]),
        message="\n".join(message for message in messages if message),
        replicas=tuple(_replica_states(replicas)),
    )


def _replica_states(replicas: Sequence[Mapping[str, Any]]) -> Iterator[ReplicaState]:
    serving = [each for each in replicas if _text(each["state"]) == "RUNNING"]
    # The controller may notice a death seconds later.
    lost = lost_nodes({each["node_id"] for each in serving if each.get("node_id")})
    for each in replicas:
        node_id = each.get("node_id") or ""
        yield ReplicaState(
            identity=each["replica_id"],
            running=each in serving and node_id not in lost and _is_alive(each["actor_name"]),
            pid=each.get("pid"),
            node_id=node_id,
            actor_name=each["actor_name"],
        )


def call_replica(actor_name: str, method: str, argument: object) -> Any:  # noqa: ANN401 - a reference
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
    return replica.handle_request.remote(pickle.dumps(metadata), argument)


def _text(status: object) -> str:
    """A status of Serve, which is a member of an enum in some places and its value in others."""
    return str(getattr(status, "value", status))


def _is_alive(actor_name: str) -> bool:
    """Whether a replica's actor lives."""
    try:
        ray.get_actor(actor_name, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def delete(name: str, *, timeout_s: float) -> bool:
    """Delete an application and wait until it is gone; whether it went in time."""
    client = _get_global_client()
    if client is None:
        return True
    client.delete_apps([name], blocking=False)
    deadline = time.monotonic() + timeout_s
    while app_state(name) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def delete_all(prefix: str, *, timeout_s: float) -> None:
    """Delete every application whose name starts with `prefix`; log what stays."""
    try:
        names = [name for name in serve.status().applications if name.startswith(prefix)]
        for name in names:
            if not delete(name, timeout_s=timeout_s):
                logger.warning("the Serve app %s is still there; delete it by hand", name)
    except (RayError, RayServeException) as error:
        logger.warning("looking for left-over Serve apps failed: %s", error)
