"""The commands that make a machine a node: when it ends itself, what it installs, how Ray starts.

They run in a shell on the node, as Ray's launcher sends them: some twice, so that each may be
repeated. The module knows shells and paths on nodes. It does not know EC2, nor what nodes cost.
"""

import datetime as dt
import shlex
from collections.abc import Sequence

from cluster.package import Package

FILES = "~/falcon_ray/cluster"
"""Where everything that is shipped to a node goes."""
TOKEN = "~/.ray/auth_token"  # noqa: S105 - a path, and the one where Ray looks by itself
PYTHON = "3.11"
"""The version that constraints.txt was tried with."""
PER_BOOT = "/var/lib/cloud/scripts/per-boot"
"""Where cloud-init looks for what to run at every start of a machine."""
HEAD_PORT = 6379
DASHBOARD_PORT = 8265
FAILED = "falcon_ray: this node cannot"
"""How a line begins by which a command says why it failed."""

_FILES = FILES.replace("~", "$HOME")
_VENV = "$HOME/falcon_ray/venv"
_UV = "$HOME/falcon_ray/uv"
_MPS_LOG = "$HOME/falcon_ray/mps"
_SWITCH = "falcon-ray-end"
_WATCHER = "falcon-ray-watcher"
_UNIT = f"/etc/systemd/system/{_WATCHER}.service"
# Ray's launcher exports OMP_NUM_THREADS=1 before every command; replicas would inherit it, and be
# measured with one thread. What a machine image says of its own CUDA would go before torch's.
_ENVIRONMENT = (
    "unset OMP_NUM_THREADS PYTHONWARNINGS LD_LIBRARY_PATH; ulimit -n 65536; "
    f'export PATH="{_VENV}/bin:$PATH" RAY_AUTH_MODE=token '
    f'RAY_AUTH_TOKEN_PATH="{TOKEN.replace("~", "$HOME")}" RAY_USAGE_STATS_ENABLED=0; '
)


def user_data(*, expires_at: dt.datetime, ttl_hours: float) -> str:
    """What a machine runs at its first start, before anybody can reach it: the dead-man switch.

    It ends the machine with its cluster, also when nothing else works, and is set again when the
    machine starts again. Where the clock is wrong, it ends it no later than the cluster may last.
    """
    most = max(1, int(ttl_hours * 60))
    switch = (
        f"left=$(( ({int(expires_at.timestamp())} - $(date +%s)) / 60 ))\n"
        f'[ "$left" -le {most} ] || left={most}\n'
        '[ "$left" -ge 1 ] || left=1\n'
        'shutdown -h "+$left"\n'
    )
    file = f"{PER_BOOT}/{_SWITCH}"
    keep = f"mkdir -p {PER_BOOT} && cat > {file} <<'END' && chmod 755 {file}\n"
    return f"#!/bin/sh\n{keep}#!/bin/sh\n{switch}END\n{switch}"


def setup_commands(
    package: Package, *, expires_at: dt.datetime, ttl_hours: float, has_gpu: bool
) -> list[str]:
    """What a new node does before Ray starts on it.

    Args:
        package: As it is shipped.
        expires_at: When it ends itself.
        ttl_hours: After how long at most.
        has_gpu: Whether replicas are to share GPUs there.
    """
    switch = shlex.quote(user_data(expires_at=expires_at, ttl_hours=ttl_hours))
    armed = "test -e /run/systemd/shutdown/scheduled"
    install = f'VIRTUAL_ENV="{_VENV}" "{_UV}/uv" pip install --quiet '
    ours = (
        f'--constraint "{_FILES}/{package.constraints.name}" --reinstall-package falcon-ray '
        f'"falcon-ray[aws,gpu] @ file://{_FILES}/{package.wheel.name}"'
    )
    commands = [
        _or_say(
            f"cloud-init status --wait >/dev/null 2>&1; {armed} || sudo sh -c {switch}",
            "set the time at which it ends itself",
        ),
        _or_say(
            f'chmod 700 "$HOME/.ray" && chmod 600 {TOKEN} && rm -rf "{_UV}" && '
            f'python3 -m zipfile -e "{_FILES}/{package.installer.name}" "{_UV}" && '
            f'chmod +x "{_UV}"/*.data/scripts/uv && '
            f'ln -sf "{_UV}"/*.data/scripts/uv "{_UV}/uv"',
            "unpack what was shipped to it",
        ),
        _or_say(
            f'test -x "{_VENV}/bin/python" || '
            f'"{_UV}/uv" venv --quiet --clear --python {PYTHON} "{_VENV}"',
            f"get Python {PYTHON}",
        ),
        # The build of torch for the driver that is there; not every version has one for each.
        _or_say(f"{install}--torch-backend auto {ours} || {install}{ours}", "install falcon_ray"),
    ]
    if has_gpu:
        ask = "echo get_server_list | timeout 10 nvidia-cuda-mps-control >/dev/null 2>&1"
        # Where it logs by default only root may write.
        start = (
            f'{{ mkdir -p "{_MPS_LOG}" && '
            f'CUDA_MPS_LOG_DIRECTORY="{_MPS_LOG}" nvidia-cuda-mps-control -d; }}'
        )
        commands.append(_or_say(f"{ask} || {start}", "start CUDA's MPS daemon"))
    return commands


def head_start_commands(watcher_arguments: Sequence[str]) -> list[str]:
    """What starts Ray on the head, and before it what ends the cluster in time.

    A head that runs is left alone, with the searches on it; its autoscaler reads its file again
    by itself.

    Args:
        watcher_arguments: Of `budget_watcher.py`.
    """
    start = (
        f"ray start --head --port={HEAD_PORT} --object-manager-port=8076 "
        f"--dashboard-host=127.0.0.1 --dashboard-port={DASHBOARD_PORT} "
        '--autoscaling-config="$HOME/ray_bootstrap_config.yaml" --disable-usage-stats'
    )
    unit = shlex.quote(_watcher_unit(watcher_arguments)).replace("$HOME", "'\"$HOME\"'")
    watch = (
        f"printf %s {unit} | sudo tee {_UNIT} >/dev/null && sudo systemctl daemon-reload && "
        f"sudo systemctl enable --quiet {_WATCHER} && sudo systemctl restart {_WATCHER}"
    )
    return [
        _or_say(watch, "watch what the cluster costs"),
        # The machine is the cluster's alone, so every Ray on it is: what is left of one that does
        # not answer would hold its ports.
        _ENVIRONMENT + _or_say(f"ray health-check || {{ ray stop; {start}; }}", "start Ray"),
    ]


def worker_start_commands() -> list[str]:
    """What starts Ray on a worker, which has RAY_HEAD_IP from Ray's launcher."""
    start = f"ray start --address=$RAY_HEAD_IP:{HEAD_PORT} --object-manager-port=8076"
    # Stopped first for the same reason as on the head; a worker that is set up again has no trials.
    return [_ENVIRONMENT + _or_say(f"ray stop; {start}", "start Ray")]


def _watcher_unit(arguments: Sequence[str]) -> str:
    """The watcher as systemd runs it: from boot on, again where it ends or hangs, and to the last.

    To start it succeeds when it has counted once.
    """
    return (
        "[Unit]\n"
        "Description=Ends the cluster before it costs too much\n"
        "Wants=network-online.target\n"
        "After=network-online.target\n"
        "StartLimitIntervalSec=0\n"
        "[Service]\n"
        "Type=notify\n"
        "TimeoutStartSec=240\n"
        "WatchdogSec=600\n"
        "Restart=always\n"
        "RestartSec=30\n"
        "OOMScoreAdjust=-1000\n"
        "Nice=-5\n"
        f"ExecStart={_VENV}/bin/python {_FILES}/budget_watcher.py {shlex.join(arguments)}\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )


def _or_say(command: str, what: str) -> str:
    """The command, and where it fails a line that says so to whoever reads the launcher's log."""
    return f"{{ {command}; }} || {{ echo {shlex.quote(f'{FAILED} {what}')}; exit 1; }}"
