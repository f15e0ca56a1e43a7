import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray warns of when it is imported is not ours to mend
    import ray
    from ray._private.utils import check_version_info, compute_version_info
    from ray.exceptions import AuthenticationError

    from falcon_ray.errors import ClusterError
    from falcon_ray.runtime.ledger.contract import NodeType
    from falcon_ray.runtime.ray_session import Cluster, check_address, why_refused
    from falcon_ray.space.defaults import NodeShape

ADDRESS = "10.0.0.1:6379"
T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
L4 = NodeShape(cpus=8, ram_gib=32.0, gpu_type="L4", n_gpus=1)


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


def refused(address: str) -> str:
    with pytest.raises(ClusterError) as caught:
        check_address(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_could_be_added_counts_as_well() -> None:
    types = (NodeType(name="l4", shape=L4, max_nodes=2),)
    assert Cluster((T4,), is_local=False, types=types).possible_nodes == (T4, L4, L4)
    assert Cluster((T4,), is_local=True).possible_nodes == (T4,)


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


def test_what_does_not_speak_http_may_be_ray() -> None:
    with listener(b"\0\0\x06\x04\0\0\0\0\0") as address:
        check_address(address)


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
    assert said.startswith(f"the cluster at {ADDRESS} refuses our token; set RAY_AUTH_MODE=token")
    assert "\n" not in said


def test_any_other_failure_is_quoted_with_what_to_check() -> None:
    said = why_refused(ADDRESS, ConnectionError("the moon is full\nand bright"))
    assert said.startswith(f"no connection to {ADDRESS}: the moon is full; check the address")
