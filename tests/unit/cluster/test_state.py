"""What this machine keeps of a cluster survives kills, and is its user's alone."""

import datetime as dt
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.identity import Identity
from cluster.state.directory import StateDirectory
from cluster.state.journal import Journal
from falcon_ray.errors import ClusterError, InputError

IDENTITY = Identity(
    name="lab",
    cluster_id="0123abcd",
    region="us-east-1",
    account_id="123456789012",
    partition="aws",
    expires_at=dt.datetime(2026, 3, 1, 20, tzinfo=dt.UTC),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_a_journal_knows_what_was_written_by_another_process(path: Path) -> None:
    journal = Journal(path)
    journal.begin(IDENTITY, image_id="ami-1")
    journal.intend("vpc")
    journal.made("vpc", "vpc-1")
    journal.intend("subnet a")
    again = Journal(path)
    assert again.identity == IDENTITY
    assert again.image_id == "ami-1"
    assert again.id_of("vpc") == "vpc-1"
    assert again.may_exist("vpc")
    assert again.may_exist("subnet a")  # begun, and nobody knows how it ended
    assert again.id_of("subnet a") is None
    assert not again.may_exist("subnet b")


def test_a_journal_that_is_only_read_is_not_made(path: Path) -> None:
    assert Journal(path).identity is None
    assert not path.exists()


def test_what_is_known_is_not_written_again(path: Path) -> None:
    journal = Journal(path)
    for _ in range(2):
        journal.begin(IDENTITY, image_id="ami-1")
        journal.made("vpc", "vpc-1")
    assert len(path.read_text().splitlines()) == 2


def test_a_line_that_was_being_written_when_the_process_was_killed_is_dropped(path: Path) -> None:
    journal = Journal(path)
    journal.begin(IDENTITY, image_id="ami-1")
    with path.open("a") as file:
        file.write('{"event": "made", "wh')
    again = Journal(path)
    assert again.identity == IDENTITY
    again.made("vpc", "vpc-1")
    assert Journal(path).id_of("vpc") == "vpc-1"


@pytest.mark.parametrize("line", ["no JSON", '{"event": "dreamt"}', '{"event": "made"}', "[]"])
def test_a_file_that_is_no_journal_is_refused(path: Path, line: str) -> None:
    path.write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"line 1 of .* is no event of a cluster"):
        Journal(path)


def test_an_event_is_on_disk_when_the_call_after_it_begins(path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from cluster.state.journal import Journal\n"
        "Journal(Path(sys.argv[1])).intend('vpc')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[3]
    said = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=root, check=False, timeout=60
    )
    assert said.returncode == -9
    assert Journal(path).may_exist("vpc")


def test_the_state_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FALCON_RAY_CLUSTERS", str(tmp_path / "here"))
    state = StateDirectory.of("lab")
    assert state.path == tmp_path / "here" / "lab"
    assert not state.path.parent.exists()
    monkeypatch.delenv("FALCON_RAY_CLUSTERS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert StateDirectory.of("lab").path == tmp_path / ".falcon_ray" / "clusters" / "lab"


@pytest.mark.parametrize("name", ["", "..", "a/b", "Lab", "-a", "a" * 25])
def test_no_cluster_is_called_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be called"):
        StateDirectory(tmp_path, name)


def test_the_directory_and_secrets_are_the_users_alone(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "clusters", "lab")
    before = os.umask(0)
    try:
        state.prepare()
        state.keep_secret(state.token_file, b"secret")
        state.journal.intend("vpc")
    finally:
        os.umask(before)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in state.path.iterdir()}
    assert modes == {"token": 0o600, "journal.jsonl": 0o600}
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.path.parent.stat().st_mode) == 0o700


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o755)
    StateDirectory(root, "lab").prepare()
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


def test_a_secret_is_written_as_a_whole(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path, "lab")
    state.prepare()
    (state.path / ".token.unfinished").write_text("a killed process left this")
    state.keep_secret(state.token_file, b"secret")
    assert state.token_file.read_bytes() == b"secret"
    assert [each.name for each in state.path.iterdir()] == ["token"]


def test_a_place_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = StateDirectory(tmp_path / "file" / "clusters", "lab")
    with pytest.raises(InputError, match="FALCON_RAY_CLUSTERS"), state.locked():
        pass


def test_the_lock_keeps_others_away_and_ends_with_its_holder(tmp_path: Path) -> None:
    mine, other = (StateDirectory(tmp_path, "lab") for _ in range(2))
    with mine.locked():
        with (
            pytest.raises(ClusterError, match=f"'lab' .process {os.getpid()}, since"),
            other.locked(),
        ):
            pass
        with mine.locked():  # whoever has it may take it again
            pass
        with pytest.raises(ClusterError), other.locked():
            pass
    with other.locked():
        pass
    with StateDirectory(tmp_path, "another").locked(), mine.locked():
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from cluster.state.directory import StateDirectory\n"
        "with StateDirectory(Path(sys.argv[1]), 'lab').locked():\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False, timeout=60)
    with StateDirectory(tmp_path, "lab").locked():
        pass


def test_what_another_process_wrote_is_seen_under_the_lock(tmp_path: Path) -> None:
    mine, other = (StateDirectory(tmp_path, "lab") for _ in range(2))
    assert mine.journal.identity is None
    with other.locked():
        other.prepare()
        other.journal.begin(IDENTITY, image_id="ami-1")
    with mine.locked():
        assert mine.journal.identity == IDENTITY
        mine.remove()
        assert mine.journal.identity is None
        mine.remove()  # twice does no harm
