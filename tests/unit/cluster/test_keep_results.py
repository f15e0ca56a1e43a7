"""What a search leaves on the head, copied into the bucket."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from cluster.keep_results import Copy, run
from tests.unit.cluster.made_clusters import REGION

SEARCH = """
import json, pathlib, sys
directory = pathlib.Path(sys.argv[1])
directory.mkdir(parents=True)
print(f"Run directory: {directory}")
(directory / "journal.jsonl").write_text("one")
(directory / "deep").mkdir()
(directory / "deep" / "er.txt").write_text("two")
print("Trial 1: measured")
print(json.dumps({"command": "search", "exit_code": int(sys.argv[2])}))
sys.exit(int(sys.argv[2]))
"""


class FakeS3:
    """Takes files; refuses where it is told to."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.refuses = False
        self.n_uploads = 0
        self.uploaded = threading.Event()

    def upload_file(self, file: str, bucket: str, key: str) -> None:
        if self.refuses:
            raise PermissionError("no")
        self.files[f"{bucket}/{key}"] = Path(file).read_text()
        self.n_uploads += 1
        self.uploaded.set()


def searched(s3: object, tmp_path: Path, exit_code: int = 0) -> tuple[int, list[str]]:
    lines: list[str] = []
    command = [sys.executable, "-c", SEARCH, str(tmp_path / "mine"), str(exit_code)]
    code = run(command, lambda directory: Copy(s3, "results", directory), say=lines.append)
    return code, lines


@pytest.mark.parametrize("exit_code", [0, 3])
def test_the_directory_is_copied_and_the_exit_code_is_the_searchs(
    tmp_path: Path, exit_code: int
) -> None:
    s3 = FakeS3()
    code, lines = searched(s3, tmp_path, exit_code)
    assert code == exit_code
    assert s3.files == {
        "results/runs/mine/journal.jsonl": "one",
        "results/runs/mine/deep/er.txt": "two",
    }
    assert lines[-2] == "Results: s3://results/runs/mine/"
    assert json.loads(lines[-1]) == {
        "command": "search",
        "exit_code": exit_code,
        "results": "s3://results/runs/mine/",
    }


def test_a_bucket_that_takes_nothing_does_not_fail_the_search(tmp_path: Path) -> None:
    s3 = FakeS3()
    s3.refuses = True
    code, lines = searched(s3, tmp_path)
    assert code == 0
    assert "on the head alone" in lines[-2]
    assert json.loads(lines[-1])["results"] is None


def test_a_search_that_was_refused_has_nothing_to_keep() -> None:
    lines: list[str] = []
    code = run(
        [sys.executable, "-c", "print('no such flag'); raise SystemExit(2)"],
        lambda directory: Copy(FakeS3(), "results", directory),
        say=lines.append,
    )
    assert (code, lines) == (2, ["no such flag"])


def test_a_search_that_is_killed_ends_as_in_a_shell() -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    code = run(
        [sys.executable, "-c", kill], lambda _: pytest.fail("no directory"), say=lambda _: None
    )
    assert code == 128 + 9


def test_files_are_copied_while_the_search_runs(tmp_path: Path) -> None:
    s3 = FakeS3()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "journal.jsonl").write_text("one")
    go_on = tmp_path / "go-on"
    wait = (
        f"import pathlib, time; print('Run directory: {tmp_path / 'mine'}', flush=True)\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)"
    )
    seen: list[bool] = []

    def release() -> None:
        seen.append(s3.uploaded.wait(20))
        go_on.touch()

    releasing = threading.Thread(target=release)
    releasing.start()
    code = run(
        [sys.executable, "-c", wait],
        lambda directory: Copy(s3, "results", directory),
        say=lambda _: None,
        period_s=0.01,
    )
    releasing.join()
    assert (code, seen) == (0, [True])


def test_what_has_not_changed_is_not_copied_again(tmp_path: Path) -> None:
    s3 = FakeS3()
    (tmp_path / "one").write_text("1")
    copy = Copy(s3, "results", tmp_path)
    copy.refresh()
    copy.refresh()
    assert s3.n_uploads == 1
    (tmp_path / "one").write_text("12")
    copy.refresh()
    assert s3.n_uploads == 2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        boto3.client("s3", region_name=REGION).create_bucket(Bucket="results")
        yield "results"


@pytest.mark.aws
def test_results_land_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    s3 = boto3.client("s3", region_name=REGION)
    searched(s3, tmp_path)
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["runs/mine/deep/er.txt", "runs/mine/journal.jsonl"]
