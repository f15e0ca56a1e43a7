import fcntl
from dataclasses import replace
from pathlib import Path

from falcon_ray.runtime.testbed.leftovers import Inventory, kept_files

BEFORE = Inventory(
    apps=frozenset({"mine"}),
    actors=frozenset(),
    groups=frozenset(),
    processes=frozenset({"ray::Old 7"}),
    files=frozenset(),
)


def test_what_is_left_is_what_was_not_there_before_with_its_kind() -> None:
    after = replace(
        BEFORE, apps=frozenset({"mine", "trial"}), processes=frozenset({"ray::ServeReplica 8"})
    )
    assert after.left_since(BEFORE) == ("apps: trial", "processes: ray::ServeReplica 8")


def test_what_has_gone_is_no_leftover() -> None:
    assert replace(BEFORE, apps=frozenset()).left_since(BEFORE) == ()


def test_files_with_content_and_locked_files_are_kept_and_locks_at_rest_are_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "cores").mkdir()
    (tmp_path / "at_rest").touch()
    (tmp_path / "cores" / "log").write_text("something")
    locked = tmp_path / "cores" / "0"
    with locked.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert kept_files(tmp_path) == {"cores/0", "cores/log"}
    assert kept_files(tmp_path) == {"cores/log"}


def test_what_ray_logs_is_nothing_that_a_trial_leaves(tmp_path: Path) -> None:
    log = tmp_path / "ray" / "session_1" / "logs" / "raylet.out"
    log.parent.mkdir(parents=True)
    log.write_text("started")
    assert kept_files(tmp_path) == frozenset()
