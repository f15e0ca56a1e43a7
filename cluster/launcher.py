"""Ray's cluster launcher as processes: a head started, found and ended.

The module knows `ray up`, `ray get-head-ip` and `ray down`, and what their output means. It does
not know what is in the file that they read.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any, Protocol

import yaml

from cluster.node_setup import FAILED
from falcon_ray.errors import ClusterError

CONFIG_NAME = "ray.yaml"
LOG_NAME = "ray.log"
SSH_WAIT_S = 600
"""How long a head may take until it can be reached."""
DOWN_TIMEOUT_S = 300.0
RAY = (sys.executable, "-m", "ray.scripts.scripts")
"""The command `ray` of the Python that runs."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
_KNOWN = (
    (
        r"UnauthorizedOperation|AccessDenied",
        "AWS does not permit it",
        "ask for the permission that the log names",
    ),
    (
        r"VcpuLimitExceeded|MaxSpotInstanceCountExceeded|InstanceLimitExceeded",
        "the account's quota of vCPUs is used up",
        "ask AWS for more, or choose another head",
    ),
    (
        r"InsufficientInstanceCapacity|Unsupported: Your requested instance type",
        "AWS has no such instance to give in these zones",
        "try again later, or choose another head or region",
    ),
    (
        r"InvalidClientTokenId|AuthFailure|ExpiredToken|NoCredentials|Unable to locate credentials",
        "AWS does not accept the credentials",
        "log in again, or give --profile",
    ),
    (
        r"wait_ready timeout exceeded|connection was being refused|Could not get node IP",
        "the head cannot be reached by SSH",
        "see that ssh_from is the network that you are in, and that port 22 may be left from there",
    ),
    (
        r"detected as terminated",
        "the head ended while it was set up",
        "see the reason in EC2's console; its time may be over",
    ),
)


class Place(Protocol):
    """Where the files of one cluster are; only its user may read them."""

    @property
    def path(self) -> Path:
        """The directory."""
        ...


def launch(
    config: Mapping[str, Any],
    state: Place,
    *,
    profile: str | None = None,
    say: Callable[[str], object] = lambda _: None,
    ray: Sequence[str] = RAY,
) -> None:
    """Start a head, or bring the one that runs up to date; takes minutes.

    A head that runs with the same instance stays, and so do Ray and the jobs on it.

    Args:
        config: What `ray_config.render` gives; it is written beside the journal.
        state: Of the cluster.
        profile: Whose credentials of AWS; None for the usual ones.
        say: Takes what Ray's launcher says, line by line.
        ray: The command.

    Raises:
        ClusterError: There is no head in the end, or it is not set up; what there is stays.
    """
    for program in ("ssh", "rsync"):
        if shutil.which(program) is None:
            raise ClusterError(f"{program} is not installed here, and Ray reaches nodes by it")
    file = state.path / CONFIG_NAME
    _write_private(file, yaml.safe_dump(dict(config), sort_keys=False))
    up = (*ray, "up", "--no-config-cache", "-y", str(file))
    code, lines = _run(up, state, profile=profile, say=say)
    if code != 0:
        raise ClusterError(
            f"no head is up: {_why(lines, code)}; it may run and cost money all the same: run up "
            f"again once that is mended, or down (all that Ray said: {state.path / LOG_NAME})"
        )


def head_address(state: Place, *, profile: str | None = None, ray: Sequence[str] = RAY) -> str:
    """Of a head that runs, as ssh takes it: user and public address.

    Raises:
        ClusterError: There is none.
    """
    file = state.path / CONFIG_NAME
    if not file.is_file():
        raise ClusterError(
            f"nothing was launched from this machine ({file} is missing); run `python -m cluster "
            "up` first"
        )
    code, lines = _run((*ray, "get-head-ip", str(file)), state, profile=profile)
    last = lines[-1] if lines else ""
    if code != 0 or not re.fullmatch(r"[0-9.]+|[0-9a-f:]+", last):
        raise ClusterError(
            f"no head runs ({_why(lines, code)}); start one by `python -m cluster up`"
        )
    user = yaml.safe_load(file.read_text(encoding="utf-8"))["auth"]["ssh_user"]
    return f"{user}@{last}"


def stop(state: Place, *, profile: str | None = None, ray: Sequence[str] = RAY) -> bool:
    """Let Ray end its nodes, as far as it can; what is left is ended by its tags.

    Returns:
        Whether Ray says that none is left; False also where nothing was launched from here.
    """
    file = state.path / CONFIG_NAME
    if not file.is_file():
        return False
    down = (*ray, "down", "-y", str(file))
    code, _ = _run(down, state, profile=profile, timeout_s=DOWN_TIMEOUT_S)
    return code == 0


def _run(
    command: Sequence[str],
    state: Place,
    *,
    profile: str | None,
    say: Callable[[str], object] = lambda _: None,
    timeout_s: float | None = None,
) -> tuple[int, list[str]]:
    """Run a command to its end.

    Returns:
        Its exit code, and the lines that it said, without what only a terminal understands.
    """
    lines: list[str] = []
    log = state.path / LOG_NAME
    _write_private(log, "")
    # Ray keeps resolved files and the head's one in its TMPDIR, for everybody to see.
    with tempfile.TemporaryDirectory(prefix="falcon-ray-") as scratch, log.open("w") as copy:
        process = subprocess.Popen(
            command,
            env=_environment(scratch, profile),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with _ended(process, timeout_s) as output:
            for raw in output:
                line = _CONTROL.sub("", raw).strip()
                if line:
                    lines.append(line)
                    print(line, file=copy, flush=True)
                    say(line)
    return process.returncode, lines


@contextmanager
def _ended(process: "subprocess.Popen[str]", timeout_s: float | None) -> Iterator[Iterator[str]]:
    """What a process says until it ends, which it does within the time and with this context."""
    assert process.stdout is not None
    timer = None if timeout_s is None else Timer(timeout_s, process.kill)
    with process:
        try:
            if timer is not None:
                timer.start()
            yield iter(process.stdout)
            process.wait()
        finally:
            if timer is not None:
                timer.cancel()
            process.kill()  # where it has ended, nothing


def _environment(scratch: str, profile: str | None) -> Mapping[str, str]:
    ours = {
        "TMPDIR": scratch,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_UP_enable_autoscaler_v2": "1",
        "AUTOSCALER_NODE_START_WAIT_S": str(SSH_WAIT_S),
        "PYTHONWARNINGS": "ignore",
    }
    if profile is None:
        return {**os.environ, **ours}
    # Keys in the environment would go before the profile.
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    rest = {name: value for name, value in os.environ.items() if name not in keys}
    return {**rest, **ours, "AWS_PROFILE": profile}


def _why(lines: Sequence[str], code: int) -> str:
    """What went wrong, in words that say what to do."""
    for line in lines:
        if line.startswith(FAILED):
            return line.replace("falcon_ray: this node", "the head")
    said = "\n".join(lines)
    for pattern, what, what_next in _KNOWN:
        if re.search(pattern, said):
            return f"{what} ({what_next})"
    telling = [line for line in lines if re.search(r"[A-Za-z]{3}", line)]
    return telling[-1] if telling else f"Ray's launcher ended with {code}"


def _write_private(file: Path, text: str) -> None:
    """Write a file that only its user may read, also while it is written."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
