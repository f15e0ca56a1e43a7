"""Searches as jobs, of a client that plays Ray's."""

import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.jobs import logs, submit
from cluster.provisioned import Provisioned
from falcon_ray.errors import ClusterError, InputError
from tests.unit.cluster.made_clusters import TOKEN, provisioned

ADDRESS = "http://127.0.0.1:40000"


@dataclass
class FakeJobs:
    """A cluster whose only job ends as it is told to."""

    status: str = "SUCCEEDED"
    exit_code: int | None = 0
    message: str = ""
    says: Sequence[str] = ("Trial", " 1\nTrial 2\n", '{"exit_code"', ": 0}")
    error: BaseException | None = None
    submitted: dict[str, Any] = field(default_factory=dict)
    jobs: Sequence[Any] = ()
    asked: list[str] = field(default_factory=list)

    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any]
    ) -> str:
        self.submitted = {"entrypoint": entrypoint, "runtime_env": runtime_env}
        return submission_id

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        self.asked.append(job_id)
        return SimpleNamespace(
            status=self.status, driver_exit_code=self.exit_code, message=self.message
        )

    def list_jobs(self) -> Sequence[Any]:
        return self.jobs

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.asked.append(job_id)
        for each in self.says:
            yield each
        if self.error is not None:
            raise self.error


@pytest.fixture
def made(tmp_path: Path) -> Provisioned:
    return provisioned(tmp_path)


def submitted(
    jobs: FakeJobs, made: Provisioned, *arguments: str, follow: bool = True
) -> tuple[int, list[str]]:
    lines: list[str] = []
    tokens: list[str] = []

    def connect(address: str, token: str) -> FakeJobs:
        tokens.append(token)
        assert address == ADDRESS
        return jobs

    code = submit(arguments, made, ADDRESS, say=lines.append, connect=connect, follow=follow)
    assert tokens == [TOKEN]
    return code, lines


def test_a_search_runs_on_the_head_and_its_results_are_kept(made: Provisioned) -> None:
    jobs = FakeJobs()
    code, lines = submitted(jobs, made, "my model.py:tiny", "--max-trials", "1")
    assert code == 0
    words = shlex.split(jobs.submitted["entrypoint"])
    assert words[:2] == ["python", "~/falcon_ray/cluster/keep_results.py"]
    assert words[2:6] == ["--bucket", made.bucket, "--region", made.region]
    assert words[6:] == [
        *("--", "python", "scripts/search.py", "my model.py:tiny", "--max-trials", "1")
    ]
    assert lines[1:] == ["Trial 1", "Trial 2", '{"exit_code": 0}']
    assert TOKEN not in str(jobs.submitted)


@pytest.mark.parametrize(
    ("status", "exit_code", "expected"),
    [("FAILED", 3, 3), ("FAILED", 2, 2), ("STOPPED", None, 5), ("SUCCEEDED", None, 0)],
)
def test_the_exit_code_is_the_searchs(
    made: Provisioned, status: str, exit_code: int | None, expected: int
) -> None:
    assert submitted(FakeJobs(status, exit_code), made, "model")[0] == expected


def test_a_job_that_never_ran_says_why(made: Provisioned) -> None:
    jobs = FakeJobs("FAILED", None, "the working directory cannot be unpacked\nmore")
    with pytest.raises(ClusterError, match="failed before it ran: the working directory"):
        submitted(jobs, made, "model")


def test_a_cluster_that_is_lost_says_how_to_go_on(made: Provisioned) -> None:
    with pytest.raises(
        ClusterError, match=r"lost while following .*python -m cluster logs search-"
    ):
        submitted(FakeJobs(error=RuntimeError("connection closed")), made, "model")


def test_ctrl_c_ends_the_following_alone(made: Provisioned) -> None:
    code, lines = submitted(FakeJobs(error=KeyboardInterrupt()), made, "model")
    assert code == 130
    assert "The search goes on" in lines[-1]


def test_without_following_it_returns_at_once(made: Provisioned) -> None:
    jobs = FakeJobs()
    code, lines = submitted(jobs, made, "model", follow=False)
    assert (code, jobs.asked, len(lines)) == (0, [], 1)


def test_a_directory_without_the_entry_point_is_refused(made: Provisioned, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scripts/search\.py is missing"):
        submit(["model"], made, ADDRESS, checkout=tmp_path)


def test_a_dashboard_that_does_not_answer_is_one_line(made: Provisioned) -> None:
    def connect(_: str, __: str) -> FakeJobs:
        raise ConnectionError("Failed to connect\nmore")

    with pytest.raises(ClusterError, match=r"does not answer at .*: Failed to connect;"):
        submit(["model"], made, ADDRESS, connect=connect)


def test_without_the_clusters_token_nothing_is_submitted(made: Provisioned) -> None:
    made.token_file.unlink()
    with pytest.raises(ClusterError, match=r"token .* cannot be read"):
        submit(["model"], made, ADDRESS, connect=lambda _, __: FakeJobs())


def test_the_log_of_the_latest_job_is_shown(made: Provisioned) -> None:
    jobs = FakeJobs(
        jobs=[
            SimpleNamespace(submission_id="old", start_time=1),
            SimpleNamespace(submission_id="new", start_time=2),
            SimpleNamespace(submission_id=None, start_time=3),  # somebody's driver
        ]
    )
    assert logs(None, made, ADDRESS, say=lambda _: None, connect=lambda _, __: jobs) == 0
    assert set(jobs.asked) == {"new"}
    logs("old", made, ADDRESS, say=lambda _: None, connect=lambda _, __: jobs)
    assert jobs.asked[-1] == "old"


def test_without_a_job_there_is_no_log(made: Provisioned) -> None:
    with pytest.raises(ClusterError, match="no job was submitted"):
        logs(None, made, ADDRESS, connect=lambda _, __: FakeJobs())
