"""What is shipped to nodes so that they can run us: our wheel, the versions, and an installer.

All of it is fetched or built here, so that a node needs nothing but any Python 3 to begin with.
The module knows pip. It does not know how files come to nodes or what is done with them there.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from falcon_ray.errors import ClusterError, InputError

UV = "uv==0.13.8"
"""The installer, which also brings a Python of our version where a machine image has none."""
FOLDER = "package"
PLATFORM = "manylinux_2_17_x86_64"

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Files that every node gets.

    Attributes:
        wheel: Ours, whose name says its version.
        constraints: The exact versions of what it needs.
        installer: The wheel of uv.
    """

    wheel: Path
    constraints: Path
    installer: Path


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build(checkout: Path, into: Path, *, run: Run = _run) -> Package:
    """Build the wheel of a checkout and fetch what installs it; needs a package index.

    The same checkout gives the same bytes again, so that nodes notice no change where is none.

    Args:
        checkout: With our pyproject.toml and constraints.txt.
        into: A directory; what is in its folder `package` is replaced.
        run: Runs a command to its end.

    Raises:
        InputError: It is no checkout of ours.
        ClusterError: pip cannot.
    """
    constraints = checkout / "constraints.txt"
    for each in (constraints, checkout / "pyproject.toml"):
        if not each.is_file():
            raise InputError(
                f"{each} is missing; run `python -m cluster` from a checkout of falcon_ray"
            )
    into = into / FOLDER
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    ours = ("wheel", "--no-deps", "--wheel-dir", str(into), str(checkout.resolve()))
    _check(run([*pip, *ours]), "build the wheel of falcon_ray")
    fetched = ("--no-deps", "--only-binary", ":all:", "--platform", PLATFORM, "--dest", str(into))
    _check(run([*pip, "download", *fetched, UV]), f"fetch {UV}")
    shutil.copy(constraints, into)
    return Package(
        wheel=_only(into, "falcon_ray-*.whl"),
        constraints=into / constraints.name,
        installer=_only(into, "uv-*.whl"),
    )


def _check(ended: "subprocess.CompletedProcess[str]", what: str) -> None:
    if ended.returncode != 0:
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        why = said[-1] if said else f"exit code {ended.returncode}"
        raise ClusterError(
            f"pip cannot {what}: {why.strip()}; check that a package index can be reached"
        )


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise ClusterError(f"pip left {names} of {pattern} in {directory}, one was expected")
    return found[0]
