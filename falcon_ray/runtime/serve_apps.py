"""The few things we need from Serve beyond its public functions, in one place.

`serve.run` has no time-out and polls once a second, and the public status names no replicas.
Everything private to Serve that falcon_ray touches is called here and nowhere else, and the
tests notice when a Ray upgrade moves it.
"""

import logging
import time
from dataclasses import dataclass

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.api import _run
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

logger = logging.getLogger(__name__)

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica as Serve's controller sees it."""

    identity: str
    running: bool
    pid: int | None
    node_id: str


@dataclass(frozen=True, slots=True)
class AppState:
    """One application as Serve's controller sees it."""

    status: str
    message: str
    replicas: tuple[ReplicaState, ...]


def start_serve() -> bool:
    """Start Serve without proxies where it does not run yet; no port is opened.

    Returns:
        Whether it was started, and so is ours to end.
    """
    ours = _get_global_client(raise_if_no_controller_running=False) is None
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    return ours


def end_serve() -> None:
    """End Serve where nothing is deployed: one without proxies would be in others' way."""
    if not serve.status().applications:
        serve.shutdown()


def deploy(app: serve.Application, name: str) -> None:
    """Hand an application to the controller and return at once."""
    _run(app, name=name, route_prefix=None, _blocking=False)


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
    return AppState(
        status=str(getattr(app["status"], "value", app["status"])),
        message="\n".join(message for message in messages if message),
        replicas=tuple(
            ReplicaState(
                identity=replica["replica_id"],
                running=str(getattr(replica["state"], "value", replica["state"])) == "RUNNING"
                and _is_alive(replica["actor_name"]),
                pid=replica.get("pid"),
                node_id=replica.get("node_id") or "",
            )
            for each in deployments
            for replica in each["replicas"]
        ),
    )


def _is_alive(actor_name: str) -> bool:
    """Whether a replica's actor lives; the controller may notice a death seconds later."""
    try:
        ray.get_actor(actor_name, namespace="serve")
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
