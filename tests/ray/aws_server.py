"""An AWS of moto's on a loopback port, for other processes to call."""

import contextlib
import http.client
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from cluster.clients import Clients
from tests.unit.cluster.made_clusters import REGION

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what moto imports is deprecated here and there
    from moto.server import ThreadedMotoServer


@contextmanager
def aws_server() -> Iterator[Mapping[str, str]]:
    """The environment of a process that calls it, and nothing else of AWS."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        forget_everything(host, port)  # all of one process share one memory
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.stop()


def forget_everything(host: str, port: int) -> None:
    """Empty all accounts."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
    finally:
        connection.close()


@contextmanager
def calling(environment: Mapping[str, str]) -> Iterator[Clients]:
    """Clients of it, and its environment in this process and in those that it starts."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment.items():
            patch.setenv(name, value)
        yield Clients.connect(REGION)
