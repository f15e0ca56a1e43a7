"""Commands on a node, run in a real shell where every program but the shell's is a stub."""

import configparser
import datetime as dt
import os
import shlex
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import budget_watcher
from cluster.node_setup import (
    FAILED,
    PER_BOOT,
    head_start_commands,
    setup_commands,
    user_data,
    worker_start_commands,
)
from tests.unit.cluster.made_clusters import EXPIRES_AT, UV_WHEEL, package

STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case " $FAIL " in *" $(basename "$0") "*) exit 3;; esac
"""
PROGRAMS = (
    *("shutdown", "sudo", "cloud-init", "python3", "ray", "systemctl"),
    *("nvidia-cuda-mps-control", "timeout"),
)
SUDO = """#!/bin/sh
echo "sudo $*" >> "$CALLS"
case "$1" in
tee) cat > "$HOME/unit";;
systemctl) case " $* " in *" $FAIL "*) exit 3;; esac;;
esac
"""


@dataclass(frozen=True)
class Node:
    """A home directory, and what was called there."""

    home: Path
    calls_file: Path

    def run(
        self, command: str, *, fail: str = "", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """As Ray's launcher does: after other exports, in bash."""
        return subprocess.run(
            ["/bin/bash", "-c", f"export OMP_NUM_THREADS=1 && ({command})"],
            env={
                "HOME": str(self.home),
                "PATH": f"{self.home / 'bin'}:/usr/bin:/bin",
                "CALLS": str(self.calls_file),
                "FAIL": fail,
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        """What the stubs were called with."""
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def a_node(tmp_path: Path) -> Node:
    for folder in ("bin", ".ray", "falcon_ray/cluster", "falcon_ray/venv/bin", "falcon_ray/uv"):
        (tmp_path / folder).mkdir(parents=True)
    for each in (*PROGRAMS, "../falcon_ray/uv/uv"):
        stub(tmp_path / "bin" / each)
    (tmp_path / ".ray" / "auth_token").write_text("token")
    return Node(tmp_path, tmp_path / "calls")


def stub(path: Path, text: str = STUB) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def commands(tmp_path: Path, *, has_gpu: bool = False) -> list[str]:
    return setup_commands(package(tmp_path), expires_at=EXPIRES_AT, ttl_hours=8.0, has_gpu=has_gpu)


@pytest.mark.parametrize(
    ("before_end", "minutes"),
    [
        (dt.timedelta(hours=3), 180),
        (dt.timedelta(hours=-1), 1),  # a node of a cluster whose time is over
        (dt.timedelta(days=900), 480),  # a wrong clock: no later than the cluster may last
    ],
)
def test_a_machine_sets_its_own_end_when_it_starts(
    a_node: Node, before_end: dt.timedelta, minutes: int
) -> None:
    now = 1_700_000_000
    ends = dt.datetime.fromtimestamp(now, dt.UTC) + before_end
    stub(a_node.home / "bin" / "date", f"#!/bin/sh\necho {now}\n")
    script = user_data(expires_at=ends, ttl_hours=8.0)
    assert script.startswith("#!/bin/sh\n")
    script = script.replace(PER_BOOT, str(a_node.home / "per-boot"))
    assert a_node.run(script).returncode == 0
    assert a_node.calls == [f"shutdown -h +{minutes}"]
    (at_every_boot,) = (a_node.home / "per-boot").iterdir()
    assert at_every_boot.stat().st_mode & 0o777 == 0o755
    assert a_node.run(str(at_every_boot)).returncode == 0
    assert a_node.calls == 2 * [f"shutdown -h +{minutes}"]


def test_a_machine_that_keeps_nothing_sets_its_end_all_the_same(a_node: Node) -> None:
    script = user_data(expires_at=EXPIRES_AT, ttl_hours=8.0)
    (a_node.home / "file").touch()
    script = script.replace(PER_BOOT, str(a_node.home / "file" / "per-boot"))
    assert a_node.run(script).returncode == 0
    assert a_node.calls[0].startswith("shutdown -h +")
    assert a_node.run(script, fail="shutdown").returncode != 0


def test_a_node_without_its_end_is_no_node(a_node: Node, tmp_path: Path) -> None:
    armed = Path("/run/systemd/shutdown/scheduled")
    assert not armed.exists(), "this machine is about to end itself"
    first = commands(tmp_path)[0]
    assert a_node.run(first).returncode == 0
    assert any(each.startswith("sudo sh -c #!/bin/sh") for each in a_node.calls)
    refused = a_node.run(first, fail="sudo")
    assert refused.returncode == 1
    assert refused.stdout.startswith(f"{FAILED} set the time")


def test_the_package_is_installed_at_the_pinned_versions(a_node: Node, tmp_path: Path) -> None:
    install = next(each for each in commands(tmp_path) if "pip install" in each)
    assert a_node.run(install).returncode == 0
    (call,) = a_node.calls
    words = shlex.split(call)
    assert words[words.index("--constraint") + 1].endswith("falcon_ray/cluster/constraints.txt")
    assert f"file://{a_node.home}/falcon_ray/cluster/falcon_ray-0.1.0-py3-none-any.whl" in call


def test_a_failing_installation_says_what_the_node_cannot_do(a_node: Node, tmp_path: Path) -> None:
    install = next(each for each in commands(tmp_path) if "pip install" in each)
    ended = a_node.run(install, fail="uv")
    assert ended.returncode == 1
    assert ended.stdout.strip() == f"{FAILED} install falcon_ray"


def test_where_torch_has_no_build_for_the_driver_the_usual_one_comes(
    a_node: Node, tmp_path: Path
) -> None:
    uv = '#!/bin/sh\necho "uv $*" >> "$CALLS"\ncase "$*" in *--torch-backend*) exit 1;; esac\n'
    stub(a_node.home / "falcon_ray/uv/uv", uv)
    install = next(each for each in commands(tmp_path) if "pip install" in each)
    assert a_node.run(install).returncode == 0
    first, second = a_node.calls
    assert first.replace("--torch-backend auto ", "") == second


def test_a_python_that_is_there_is_kept(a_node: Node, tmp_path: Path) -> None:
    get = next(each for each in commands(tmp_path) if " venv " in each)
    assert a_node.run(get).returncode == 0
    assert [each.split()[:2] for each in a_node.calls] == [["uv", "venv"]]
    stub(a_node.home / "falcon_ray/venv/bin/python")
    assert a_node.run(get).returncode == 0
    assert len(a_node.calls) == 1


def test_only_gpu_nodes_get_the_mps_daemon_and_only_one(a_node: Node, tmp_path: Path) -> None:
    assert not any("mps" in each for each in commands(tmp_path))
    start = commands(tmp_path, has_gpu=True)[-1]
    stub(
        a_node.home / "bin" / "nvidia-cuda-mps-control",
        'echo "$(basename "$0") $*" >> "$CALLS"; test -w "$CUDA_MPS_LOG_DIRECTORY"\n',
    )
    assert a_node.run(start, fail="timeout").returncode == 0
    assert a_node.calls[-1] == "nvidia-cuda-mps-control -d"
    n_before = len(a_node.calls)
    assert a_node.run(start).returncode == 0  # the daemon answers
    assert "nvidia-cuda-mps-control -d" not in a_node.calls[n_before:]


def test_what_was_shipped_is_unpacked_and_the_token_is_private(
    a_node: Node, tmp_path: Path
) -> None:
    unpack = next(each for each in commands(tmp_path) if "zipfile" in each)
    token = a_node.home / ".ray" / "auth_token"
    token.chmod(0o644)
    (a_node.home / "bin" / "python3").unlink()
    for version in ("1", "2"):  # another installer comes with another `up`
        with zipfile.ZipFile(a_node.home / "falcon_ray/cluster" / UV_WHEEL, "w") as wheel:
            wheel.writestr(f"uv-{version}.data/scripts/uv", f"#!/bin/sh\necho {version}\n")
        assert a_node.run(unpack).returncode == 0
        assert a_node.run('"$HOME/falcon_ray/uv/uv"').stdout.strip() == version
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_head_that_runs_is_left_alone(a_node: Node) -> None:
    *_, start = head_start_commands(["--cluster-id", "0123abcd"])
    assert a_node.run(start).returncode == 0
    assert a_node.calls == ["ray health-check"]


RAY_STUB = """#!/bin/sh
echo "ray $* mode=$RAY_AUTH_MODE token=$RAY_AUTH_TOKEN_PATH threads=$OMP_NUM_THREADS" >> "$CALLS"
test "$1" != health-check
"""


def test_a_head_starts_with_its_token_and_a_dashboard_for_itself(a_node: Node) -> None:
    stub(a_node.home / "bin" / "ray", RAY_STUB)
    *_, start = head_start_commands(["--cluster-id", "0123abcd"])
    assert a_node.run(start).returncode == 0
    last = a_node.calls[-1]
    assert "ray start --head --port=6379" in last
    assert "--dashboard-host=127.0.0.1" in last
    assert f"mode=token token={a_node.home}/.ray/auth_token" in last
    assert last.endswith("threads=")  # replicas choose for themselves


def test_a_worker_joins_the_head_with_the_token(a_node: Node) -> None:
    stub(a_node.home / "bin" / "ray", RAY_STUB)
    (start,) = worker_start_commands()
    assert a_node.run(start, RAY_HEAD_IP="10.0.0.7").returncode == 0
    assert "ray start --address=10.0.0.7:6379" in a_node.calls[-1]
    assert "mode=token" in a_node.calls[-1]


def test_nothing_starts_on_a_head_that_nobody_watches(a_node: Node) -> None:
    stub(a_node.home / "bin" / "sudo", SUDO)
    watch, _ = head_start_commands(["--cluster-id", "0123abcd"])
    assert a_node.run(watch).returncode == 0
    assert [each.split()[2] for each in a_node.calls[1:]] == ["daemon-reload", "enable", "restart"]
    ended = a_node.run(watch, fail="restart")
    assert ended.returncode == 1
    assert ended.stdout.strip() == f"{FAILED} watch what the cluster costs"


def test_the_watcher_comes_again_after_a_boot_a_crash_or_a_hang(a_node: Node) -> None:
    stub(a_node.home / "bin" / "sudo", SUDO)
    watch, _ = head_start_commands(["--usd-per-hour", "g6.2xlarge/spot=0.9"])
    assert a_node.run(watch).returncode == 0
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string((a_node.home / "unit").read_text())
    ours = a_node.home / "falcon_ray"
    assert unit["Service"]["ExecStart"] == (
        f"{ours}/venv/bin/python {ours}/cluster/budget_watcher.py "
        "--usd-per-hour g6.2xlarge/spot=0.9"
    )
    assert unit["Service"]["Type"] == "notify"  # it has started when it has counted
    assert unit["Service"]["Restart"] == "always"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert int(unit["Service"]["WatchdogSec"]) > budget_watcher.PERIOD_S
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_the_shell_takes_every_command(tmp_path: Path) -> None:
    every = (
        *commands(tmp_path, has_gpu=True),
        *head_start_commands(["--region", "us-east-1"]),
        *worker_start_commands(),
    )
    for each in every:
        checked = subprocess.run(
            ["/bin/bash", "-n", "-c", each],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ,
        )
        assert checked.returncode == 0, checked.stderr
