"""What a search has to know of being a Ray job: where it runs, and what outlives it.

A job runs in a copy of the directory that was submitted, which the cluster deletes after it. The
module knows that and nothing of searches.
"""

import os
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for the process that a job runs."""
RUNS_VARIABLE = "FALCON_RAY_RUNS"
HOME_OF_RUNS = Path("~/falcon_ray/runs")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class PackageSize:
    """What a directory holds.

    Attributes:
        n_files: Its files, those of its directories included.
        n_bytes: What they hold together, unpacked.
    """

    n_files: int
    n_bytes: int

    def __str__(self) -> str:
        return f"{self.n_bytes / MIB:.1f} MiB in {self.n_files} files"


def is_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is what a Ray job runs."""
    return JOB_VARIABLE in environment


def package_size(directory: Path) -> PackageSize:
    """What of a directory was submitted; what Python has compiled there since does not count."""
    files = [
        each
        for each in directory.rglob("*")
        if each.is_file() and "__pycache__" not in each.parts and not each.is_symlink()
    ]
    return PackageSize(len(files), sum(each.stat().st_size for each in files))


def run_directory(
    given: str | os.PathLike[str] | None, environment: Mapping[str, str] = os.environ
) -> Path:
    """Where the files of a search go so that they are there once it has ended.

    Args:
        given: What the user names; None for a new directory.
        environment: `FALCON_RAY_RUNS` names the directory of all runs. Without it that is `runs`
            here, and `falcon_ray/runs` in the home directory for a job.

    Returns:
        What was given; in a job, a relative path counts from the directory of all runs.
    """
    named = environment.get(RUNS_VARIABLE)
    home = Path(named or (HOME_OF_RUNS if is_job(environment) else "runs")).expanduser()
    if given is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        # Several searches may begin in the same second.
        return home / f"search-{stamp}-{secrets.token_hex(2)}"
    return home / given if is_job(environment) else Path(given)


def own_version(distribution: str = "falcon-ray") -> str:
    """Our version: as installed, or as the directory says that a job has brought along."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        if not project.is_file():
            return "unknown"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
