"""What a search leaves on the head, copied into the bucket."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster import keep_results
from cluster.clients import Clients
from cluster.keep_results import Copy, run
from tests.ray.aws_server import aws_server, calling
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


PAUSING = """
import pathlib, sys, time
directory, go_on = map(pathlib.Path, sys.argv[1:])
print(f"Run directory: {directory}", flush=True)
directory.mkdir()
(directory / "journal.jsonl").write_text("one")
print("Trial 1: measured", flush=True)
while not go_on.exists():
    time.sleep(0.01)
"""


def test_a_trial_is_in_the_bucket_before_the_next_one_is_measured(tmp_path: Path) -> None:
    s3, go_on = FakeS3(), tmp_path / "go-on"
    seen: list[bool] = []

    def release() -> None:
        seen.append(s3.uploaded.wait(20))
        go_on.touch()

    releasing = threading.Thread(target=release)
    releasing.start()
    code = run(
        [sys.executable, "-c", PAUSING, str(tmp_path / "mine"), str(go_on)],
        lambda directory: Copy(s3, "results", directory),
        say=lambda _: None,
    )
    releasing.join()
    assert (code, seen) == (0, [True])


def test_files_are_copied_also_while_a_search_is_silent(tmp_path: Path) -> None:
    s3, directory = FakeS3(), tmp_path / "mine"
    go_on = tmp_path / "go-on"
    silent = (
        f"import pathlib, time; print('Run directory: {directory}', flush=True)\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)"
    )

    class CopyOfWhatComesLater(Copy):
        """Its first refresh finds nothing; what is written after that, nobody announces."""

        def refresh(self) -> None:
            super().refresh()
            directory.mkdir(exist_ok=True)
            (directory / "journal.jsonl").write_text("one")
            if s3.n_uploads:
                go_on.touch()

    code = run(
        [sys.executable, "-c", silent],
        lambda it: CopyOfWhatComesLater(s3, "results", it),
        say=lambda _: None,
        period_s=0.01,
    )
    assert code == 0


def test_a_temporary_file_that_goes_spares_the_others(tmp_path: Path) -> None:
    class VanishingS3(FakeS3):
        """Somebody renames a file just before it is read."""

        def upload_file(self, file: str, bucket: str, key: str) -> None:
            (tmp_path / "a.tmp").unlink(missing_ok=True)
            super().upload_file(file, bucket, key)

    s3 = VanishingS3()
    for name in ("a.tmp", "b"):
        (tmp_path / name).write_text(name)
    Copy(s3, "results", tmp_path).refresh()
    assert list(s3.files.values()) == ["b"]


@pytest.mark.aws
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_search_has_found_is_kept_when_its_job_is_stopped(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Signals reach the whole group, as Ray and systemd send them."""
    directory = tmp_path / "mine"
    late = (
        "import atexit, pathlib, signal, sys, time\n"
        f"directory = pathlib.Path({str(directory)!r})\n"
        "directory.mkdir()\n"
        "def end(*_):\n"
        "    (directory / 'journal.jsonl').write_text('to the last')\n"
        "    sys.exit(5)\n"
        "for each in (signal.SIGTERM, signal.SIGHUP): signal.signal(each, end)\n"
        "print(f'Run directory: {directory}', flush=True)\n"
        "while True: time.sleep(60)"
    )
    with aws_server() as environment, calling(environment) as clients:
        clients.s3.create_bucket(Bucket="results")
        keep = subprocess.Popen(
            [
                *(sys.executable, str(keep_results.__file__), "--bucket", "results"),
                *("--region", REGION, "--", sys.executable, "-c", late),
            ],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with keep:
            assert keep.stdout is not None
            assert keep.stdout.readline().startswith("Run directory: ")
            os.killpg(keep.pid, number)
            assert keep.wait(timeout=30) == 5
        body = clients.s3.get_object(Bucket="results", Key="runs/mine/journal.jsonl")["Body"]
        assert body.read() == b"to the last"


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


@pytest.mark.aws
def test_results_land_in_a_bucket(account: Clients, tmp_path: Path) -> None:
    account.s3.create_bucket(Bucket="results")
    searched(account.s3, tmp_path)
    keys = [each["Key"] for each in account.s3.list_objects_v2(Bucket="results")["Contents"]]
    assert keys == ["runs/mine/deep/er.txt", "runs/mine/journal.jsonl"]
