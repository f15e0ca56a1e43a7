import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cluster.own_address import own_address
from falcon_ray.errors import ClusterError


@contextmanager
def service(answer: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_answer_is_a_network_of_one_address() -> None:
    with service(b"203.0.113.7\n") as url:
        assert own_address(url) == "203.0.113.7/32"


@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"2001:db8::1\n", 200), (b"0.0.0.0/0", 200), (b"<html>", 200), (b"", 503)],
)
def test_anything_else_is_refused_with_what_to_write(answer: bytes, status: int) -> None:
    with service(answer, status) as url, pytest.raises(ClusterError, match="say ssh_from in the"):
        own_address(url)


def test_no_answer_is_refused_with_what_to_write() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(ClusterError, match="say ssh_from in the cluster's file"):
        own_address(url)
