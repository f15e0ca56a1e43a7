"""Whether a cluster answers at an address, lets us in and is of our version; in one line if not.

It asks before Ray does, which needs 20 s to notice a wrong token and minutes to notice a wrong
port. It knows addresses. It does not know what is done on a cluster.
"""

import re
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from falcon_ray.errors import ClusterError

REACH_TIMEOUT_S = 5.0
SUBMIT = "ray job submit --address {} --working-dir . -- python scripts/search.py ..."

_VERSIONS = re.compile(r"Ray:\s*(?P<ray>\S+)\s+Python:\s*(?P<python>\S+)")
_UNAUTHENTICATED = ("unauthenticated", "authentication", "auth token")


def check_address(address: str) -> None:
    """Notice within seconds what Ray itself notices after minutes, or not at all.

    Raises:
        ClusterError: It is not an address of a cluster, or nobody listens there.
    """
    if address.startswith(("http://", "https://")):
        raise ClusterError(_dashboard(address))
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address} is for Ray's client, which a search cannot use: it deploys and measures "
            "from within the cluster; submit it as a job by "
            f"{SUBMIT.format('http://HOST:8265')}, or give the address of Ray itself on one of its "
            "nodes, HOST:6379"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with socket.create_connection(
            (host.strip("[]"), int(port)), timeout=REACH_TIMEOUT_S
        ) as peer:
            speaks_http = _speaks_http(peer)
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}); check the address and the network, "
            "or leave it out to search on this machine"
        ) from error
    if speaks_http:
        raise ClusterError(_dashboard(f"http://{address}"))
    _check_lets_us_in(address)


def _check_lets_us_in(address: str) -> None:
    """Ask Ray's own server for its version, as Ray does after 20 attempts to be let in.

    Raises:
        ClusterError: It refuses our token, has another version, or is no Ray.
    """
    messages: Any = gcs_service_pb2  # generated, so that nothing is known of what it holds
    channel: Any = init_grpc_channel(address)
    with channel:
        try:
            reply = NodeInfoGcsServiceStub(channel).CheckAlive(
                messages.CheckAliveRequest(), timeout=REACH_TIMEOUT_S
            )
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.UNAUTHENTICATED:
                raise ClusterError(_refused_token(address)) from error
            if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise ClusterError(
                    f"what listens at {address} is no Ray cluster, or does not answer within "
                    f"{REACH_TIMEOUT_S:g} s; give the address that ray start --head printed"
                ) from error
            return  # Ray knows better what it means
    if reply.ray_version and reply.ray_version != ray.__version__:
        raise ClusterError(
            _other_version(address, f"Ray {reply.ray_version}", f"Ray {ray.__version__}")
        )


def _dashboard(url: str) -> str:
    return (
        f"{url} is the address of a dashboard; submit the search there as a job by "
        f"{SUBMIT.format(url)}, or give the address of Ray itself, such as HOST:6379"
    )


def _speaks_http(peer: socket.socket) -> bool:
    """Whether an old-fashioned request is answered, which Ray's own server does not."""
    try:
        peer.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        return peer.recv(5) == b"HTTP/"
    except OSError:
        return False


def why_refused(where: str, error: BaseException) -> str:
    """What to say of a connection that Ray could not make, in one line.

    Args:
        where: The address.
        error: What Ray raised.
    """
    said = " ".join(str(each) for each in _chain(error))
    versions = _VERSIONS.findall(said)
    if len(versions) >= 2:
        (there_ray, there_python), (here_ray, here_python) = versions[:2]
        return _other_version(
            where,
            f"Ray {there_ray} on Python {there_python}",
            f"Ray {here_ray} on Python {here_python}",
        )
    if any(word in said.lower() for word in _UNAUTHENTICATED):
        return _refused_token(where)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"no connection to {where}: {first}; check the address, that Ray {ray.__version__} "
        "runs there, and RAY_AUTH_TOKEN"
    )


def _other_version(where: str, there: str, here: str) -> str:
    return (
        f"the cluster at {where} runs {there}, and this is {here}; make them the same, or submit "
        f"the search as a job, which runs with what is there: {SUBMIT.format('http://HOST:8265')}"
    )


def _refused_token(where: str) -> str:
    return (
        f"the cluster at {where} refuses our token, or we have none; set RAY_AUTH_MODE=token, and "
        "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the token of the cluster"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
