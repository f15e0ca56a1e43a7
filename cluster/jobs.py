"""Searches as jobs of a running cluster: submitted, followed, and ended with their own exit code.

The module knows Ray's jobs by their web interface. It does not know how the cluster is reached,
nor what a search does.
"""

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from cluster import keep_results
from cluster.node_setup import FILES
from cluster.provisioned import Provisioned
from falcon_ray.errors import ClusterError, InputError, SearchInterruptedError

CHECKOUT = Path(__file__).parent.parent
ENTRY_POINT = "scripts/search.py"
INTERRUPTED = 130
"""The exit code of whoever stops following with Ctrl-C, as shells have it."""
_KEEP = f"{FILES}/{Path(str(keep_results.__file__)).name}"
_ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_POLL_S = 0.2
_SETTLE_S = 30.0

Say = Callable[[str], object]


class Jobs(Protocol):
    """What is asked of Ray's jobs; their own client does it."""

    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any]
    ) -> str:
        """Upload, and start."""
        ...

    def get_job_info(self, job_id: str) -> Any:  # noqa: ANN401 - Ray's
        """How it stands."""
        ...

    def list_jobs(self) -> Sequence[Any]:
        """All there were."""
        ...

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """What it has said, and says until it ends."""
        ...


Connect = Callable[[str, str], Jobs]
"""From an address and a token."""


def _connect(address: str, token: str) -> Jobs:
    from ray.exceptions import AuthenticationError  # noqa: PLC0415 - Ray takes a second
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 - likewise

    try:
        return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})
    except AuthenticationError as error:
        raise ConnectionError("it is another cluster's, which refuses our token") from error


def submit(
    arguments: Sequence[str],
    provisioned: Provisioned,
    address: str,
    *,
    checkout: Path = CHECKOUT,
    follow: bool = True,
    say: Say = print,
    connect: Connect = _connect,
) -> int:
    """Run a search on the cluster; its run directory is in the bucket afterwards.

    Args:
        arguments: Those of `falcon-ray search`; a model's file is named from the checkout.
        provisioned: The cluster.
        address: Of its dashboard, on this machine.
        checkout: What is uploaded, but for what .rayignore and .gitignore name.
        follow: Whether to wait for its end.
        say: Takes what it says.
        connect: Makes the client.

    Returns:
        The search's exit code; 0 at once without `follow`, 130 after Ctrl-C, which does not stop
        the search.

    Raises:
        ClusterError: The cluster does not take it, or is lost meanwhile.
    """
    if not (checkout / ENTRY_POINT).is_file():
        raise InputError(f"{checkout / ENTRY_POINT} is missing; give a checkout of falcon_ray")
    jobs = _connected(provisioned, address, connect)
    job = f"search-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{token_hex(2)}"
    keep = ("--bucket", provisioned.bucket, "--region", provisioned.region, "--")
    search = ("python", ENTRY_POINT, *arguments)
    try:
        jobs.submit_job(
            # The shell on the head knows where its home is.
            entrypoint=f"python {_KEEP} {shlex.join((*keep, *search))}",
            submission_id=job,
            runtime_env={"working_dir": str(checkout)},
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"the cluster did not take the search: {_first_line(error)}") from error
    say(f"Job {job}; follow it again by: python -m cluster logs {job}")
    return _followed(jobs, job, say) if follow else 0


def logs(
    job: str | None,
    provisioned: Provisioned,
    address: str,
    *,
    say: Say = print,
    connect: Connect = _connect,
) -> int:
    """Show what a job has said, and follow it to its end.

    Args:
        job: As `submit` named it; None for the latest.
        provisioned: The cluster.
        address: Of its dashboard, on this machine.
        say: Takes what it says.
        connect: Makes the client.

    Returns:
        As `submit`.

    Raises:
        ClusterError: There is no such job, or the cluster is lost meanwhile.
    """
    jobs = _connected(provisioned, address, connect)
    if job is None:
        try:
            all_jobs = [each for each in jobs.list_jobs() if each.submission_id]
        except (RuntimeError, OSError) as error:
            raise ClusterError(f"the cluster lists no jobs: {_first_line(error)}") from error
        if not all_jobs:
            raise ClusterError("no job was submitted to this cluster; begin with submit")
        job = str(max(all_jobs, key=lambda each: each.start_time or 0).submission_id)
        say(f"Job {job}")
    return _followed(jobs, job, say)


def _connected(provisioned: Provisioned, address: str, connect: Connect) -> Jobs:
    try:
        token = provisioned.token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ClusterError(
            f"the cluster's token {provisioned.token_file} cannot be read ({error.strerror}); it "
            "is on the machine that ran up"
        ) from error
    try:
        return connect(address, token)
    except (RuntimeError, OSError) as error:
        raise ClusterError(
            f"Ray's dashboard does not answer at {address}: {_first_line(error)}; Ray may still be "
            "starting, or the head is gone (status)"
        ) from error


def _followed(jobs: Jobs, job: str, say: Say) -> int:
    """The exit code of a job, once it has said all."""
    try:
        asyncio.run(_show(jobs, job, say))
        details = _ended(jobs, job)
    except KeyboardInterrupt:
        say(f"The search goes on; follow it again by: python -m cluster logs {job}")
        return INTERRUPTED
    except (RuntimeError, OSError) as error:
        raise ClusterError(
            f"the cluster was lost while following {job}: {_first_line(error)}; its limits may "
            "have ended it (status), and what it had found is in the bucket; if its head runs, the "
            f"search goes on: python -m cluster logs {job}"
        ) from error
    if details.status == "STOPPED":
        say("The search was stopped; what it has found is in the bucket.")
        return SearchInterruptedError.exit_code
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    if details.status == "SUCCEEDED":
        return 0
    raise ClusterError(f"{job} failed before it ran: {_first_line(details.message or '')}")


async def _show(jobs: Jobs, job: str, say: Say) -> None:
    """Say whole lines; what comes is cut anywhere."""
    rest = ""
    async for part in jobs.tail_job_logs(job):
        *lines, rest = (rest + part).split("\n")
        for line in lines:
            say(line)
    if rest:
        say(rest)


def _ended(jobs: Jobs, job: str) -> Any:  # noqa: ANN401 - Ray's
    """The details of a job whose log has ended; its status may follow a little later."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        details = jobs.get_job_info(job)
        if str(getattr(details.status, "value", details.status)) in _ENDED:
            return details
        if time.monotonic() > deadline:
            raise RuntimeError("its log has ended, and it has not")
        time.sleep(_POLL_S)


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
