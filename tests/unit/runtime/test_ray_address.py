import socket
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray warns of when it is imported is not ours to mend
    import ray
    from ray._private.utils import check_version_info, compute_version_info
    from ray.core.generated import gcs_service_pb2
    from ray.core.generated.gcs_service_pb2_grpc import (
        NodeInfoGcsServiceServicer,
        add_NodeInfoGcsServiceServicer_to_server,
    )
    from ray.exceptions import AuthenticationError

    from falcon_ray.errors import ClusterError
    from falcon_ray.runtime.ray_address import check_address, why_refused

ADDRESS = "10.0.0.1:6379"


@contextmanager
def listener(answer: bytes) -> Iterator[str]:
    """An address where somebody says `answer` once to whoever says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1024)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


class FakeGcs(NodeInfoGcsServiceServicer):
    """Ray's own server, as far as it is asked before one connects."""

    def __init__(self, *, version: str, lets_in: bool) -> None:
        self._version = version
        self._lets_in = lets_in

    def CheckAlive(self, request: Any, context: Any) -> Any:  # noqa: ANN401, ARG002, N802
        if not self._lets_in:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        messages: Any = gcs_service_pb2
        return messages.CheckAliveReply(ray_version=self._version)


@contextmanager
def gcs(*, version: str = ray.__version__, lets_in: bool = True) -> Iterator[str]:
    """The address of a `FakeGcs`."""
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        add_NodeInfoGcsServiceServicer_to_server(FakeGcs(version=version, lets_in=lets_in), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()


def refused(address: str) -> str:
    with pytest.raises(ClusterError) as caught:
        check_address(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert refused(address).startswith(f"no Ray cluster answers at {address}")


def test_the_address_of_a_dashboard_is_where_jobs_go() -> None:
    said = refused("http://127.0.0.1:8265")
    assert said.startswith("http://127.0.0.1:8265 is the address of a dashboard")
    assert "ray job submit --address http://127.0.0.1:8265 --working-dir ." in said


def test_a_dashboard_is_known_by_its_speaking_http() -> None:
    with listener(b"HTTP/1.0 200 OK\r\n\r\n") as address:
        assert f"http://{address} is the address of a dashboard" in refused(address)


def test_what_speaks_neither_http_nor_rays_protocol_is_no_cluster() -> None:
    with listener(b"SSH-2.0-OpenSSH_9.6\r\n") as address:
        assert refused(address).startswith(f"what listens at {address} is no Ray cluster")


def test_a_cluster_that_lets_us_in_is_left_to_ray() -> None:
    with gcs() as address:
        check_address(address)


def test_a_cluster_that_refuses_our_token_says_what_to_set() -> None:
    with gcs(lets_in=False) as address:
        assert refused(address).startswith(
            f"the cluster at {address} refuses our token, or we have none; set RAY_AUTH_MODE=token"
        )


def test_a_cluster_of_another_version_is_noticed_before_ray_connects() -> None:
    with gcs(version="2.9.3") as address:
        said = refused(address)
    assert f"the cluster at {address} runs Ray 2.9.3, and this is Ray {ray.__version__}" in said


def test_rays_client_is_refused_with_what_to_do_instead() -> None:
    assert "submit it as a job by ray job submit" in refused("ray://10.0.0.1:10001")


def test_words_such_as_auto_are_left_to_ray() -> None:
    check_address("auto")


def test_a_cluster_with_another_ray_names_both_versions() -> None:
    _, python = compute_version_info()
    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.9.3", "python_version": "3.9.1"}, "here")
    said = why_refused(ADDRESS, caught.value)
    assert f"the cluster at {ADDRESS} runs Ray 2.9.3 on Python 3.9.1" in said
    assert f"this is Ray {ray.__version__} on Python {python}" in said
    assert "\n" not in said


def test_another_python_alone_is_a_difference_as_well() -> None:
    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": ray.__version__, "python_version": "3.9.1"}, "here")
    assert "on Python 3.9.1, and this is" in why_refused(ADDRESS, caught.value)


def test_a_refused_token_is_said_also_where_ray_only_says_it_failed() -> None:
    error = ConnectionError(f"Failed to connect to Ray cluster at {ADDRESS}")
    error.__cause__ = AuthenticationError("Invalid token")
    said = why_refused(ADDRESS, error)
    assert said.startswith(f"the cluster at {ADDRESS} refuses our token, or we have none")
    assert "\n" not in said


def test_any_other_failure_is_quoted_with_what_to_check() -> None:
    said = why_refused(ADDRESS, ConnectionError("the moon is full\nand bright"))
    assert said.startswith(f"no connection to {ADDRESS}: the moon is full; check the address")
