"""A tunnel by a program that plays ssh."""

import http.client
import sys
from pathlib import Path

import pytest

from cluster.provisioned import Provisioned
from cluster.tunnel import tunnel
from falcon_ray.errors import ClusterError
from tests.unit.cluster.made_clusters import provisioned

SSH = """#!{python}
import http.server, pathlib, sys
pathlib.Path({seen!r}).write_text("\\n".join(sys.argv[1:]))
host, port, *_ = sys.argv[sys.argv.index("-L") + 1].split(":")
http.server.HTTPServer((host, int(port)), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Provisioned:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return provisioned(tmp_path)


def play(made: Provisioned, text: str) -> None:
    ssh = made.private_key.parent / "bin" / "ssh"
    ssh.write_text(text)
    ssh.chmod(0o755)


def answered(address: str) -> int:
    """The status of what answers there."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_tunnel_leads_from_loopback_to_the_heads_own_dashboard(
    made: Provisioned, tmp_path: Path
) -> None:
    play(made, SSH.format(python=sys.executable, seen=str(tmp_path / "seen")))
    with tunnel(made, "ubuntu@198.51.100.4") as address:
        assert address.startswith("http://127.0.0.1:")
        assert answered(address) == 200
        words = (tmp_path / "seen").read_text().splitlines()
    port = address.rpartition(":")[2]
    assert words[words.index("-L") + 1] == f"127.0.0.1:{port}:127.0.0.1:8265"
    assert words[words.index("-i") + 1] == str(made.private_key)
    assert "StrictHostKeyChecking=accept-new" in words
    assert words[-1] == "ubuntu@198.51.100.4"
    with pytest.raises(OSError, match="refused"):
        answered(address)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ubuntu@198.51.100.4: Permission denied (publickey).", "Permission denied.*not that of"),
        ("ssh: connect to host x port 22: Connection timed out", "timed out.*ssh_from"),
        ("ssh: connect to host x port 22: Connection refused", "refused.*status"),
        ("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", "another machine.*known_hosts"),
        ("", "did not say why"),
    ],
)
def test_why_ssh_cannot_connect_is_one_line(made: Provisioned, said: str, expected: str) -> None:
    play(made, f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    with pytest.raises(ClusterError, match=expected), tunnel(made, "ubuntu@198.51.100.4"):
        pass


def test_an_ssh_that_never_connects_is_given_up(made: Provisioned) -> None:
    play(made, "#!/bin/sh\nexec /bin/sleep 60\n")
    with (
        pytest.raises(ClusterError, match=r"no tunnel .* after 0.2 s"),
        tunnel(made, "ubuntu@198.51.100.4", open_timeout_s=0.2),
    ):
        pass


def test_without_ssh_there_is_no_tunnel(made: Provisioned) -> None:
    with pytest.raises(ClusterError, match="ssh is not installed"), tunnel(made, "ubuntu@x"):
        pass
