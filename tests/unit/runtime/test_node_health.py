import socket

from falcon_ray.runtime.node_health import Raylet


def test_a_node_answers_as_long_as_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        raylet = Raylet(*server.getsockname())
        assert raylet.answers()
    assert not raylet.answers()
