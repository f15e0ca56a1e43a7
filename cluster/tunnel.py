"""An SSH tunnel from a loopback port here to the dashboard of the head.

The dashboard itself listens to nobody outside of its machine. The module knows ssh; it does not
know what goes through.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from cluster.node_setup import DASHBOARD_PORT
from cluster.provisioned import Provisioned
from falcon_ray.errors import ClusterError

OPEN_TIMEOUT_S = 30.0
_POLL_S = 0.1


@contextmanager
def tunnel(
    provisioned: Provisioned, head: str, *, open_timeout_s: float = OPEN_TIMEOUT_S
) -> Iterator[str]:
    """Keep a tunnel open, and give the URL of the dashboard on this machine.

    Args:
        provisioned: Whose head it is.
        head: As `launcher.head_address` gives it.
        open_timeout_s: Longest wait for it.

    Raises:
        ClusterError: ssh cannot connect.
    """
    port = _free_port()
    # A head that is new at an old address would be refused; an unknown one is believed once.
    known_hosts = provisioned.private_key.with_name(f"known_hosts-{provisioned.cluster_id}")
    command = [
        *("ssh", "-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{DASHBOARD_PORT}"),
        *("-i", str(provisioned.private_key)),
        *_options(
            IdentitiesOnly="yes",
            BatchMode="yes",
            ExitOnForwardFailure="yes",
            ConnectTimeout=f"{open_timeout_s:.0f}",
            ServerAliveInterval="15",
            ServerAliveCountMax="4",
            StrictHostKeyChecking="accept-new",
            UserKnownHostsFile=str(known_hosts),
        ),
        head,
    ]
    with tempfile.TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
            )
        except FileNotFoundError as error:
            raise ClusterError("ssh is not installed here, and heads are reached by it") from error
        try:
            _wait_until_open(process, port, said, head=head, timeout_s=open_timeout_s)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _options(**values: str) -> list[str]:
    return [word for name, value in values.items() for word in ("-o", f"{name}={value}")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_open(
    process: "subprocess.Popen[bytes]", port: int, said: IO[str], *, head: str, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        if process.poll() is not None:
            said.seek(0)
            raise ClusterError(f"ssh to {head} ended: {_why(said.read())}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"no tunnel to {head} after {timeout_s:g} s; see that you are in the network "
                    "that ssh_from names, or run up again from here"
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _why(said: str) -> str:
    """What ssh said last, and what to do about it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it did not say why"
    if "IDENTIFICATION HAS CHANGED" in said or "Host key verification failed" in said:
        return (
            "another machine answers there than before; if the head is new, remove the "
            "known_hosts file beside the cluster's key"
        )
    if "Permission denied" in last:
        return f"{last}; the key beside the cluster's journal is not that of the head"
    if "timed out" in last or "refused" in last or "unreachable" in last:
        return (
            f"{last}; see that the head runs (status) and that you are in the network that "
            "ssh_from names"
        )
    return last
