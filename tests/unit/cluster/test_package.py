"""What is shipped to nodes."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.package import UV, build
from falcon_ray.errors import ClusterError, InputError

ROOT = Path(__file__).parents[3]


class FakePip:
    """Leaves a wheel where it is told to, or fails."""

    def __init__(self, *, fails: str | None = None) -> None:
        self.commands: list[Sequence[str]] = []
        self._fails = fails

    def __call__(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        self.commands.append(command)
        if self._fails is not None:
            return subprocess.CompletedProcess(command, 1, "", f"WARNING: x\n{self._fails}\n")
        for flag, name in (
            ("--wheel-dir", "falcon_ray-0.1.0-py3-none-any"),
            ("--dest", "uv-0-py3"),
        ):
            if flag in command:
                into = Path(command[command.index(flag) + 1])
                (into / f"{name}.whl").write_text("")
        return subprocess.CompletedProcess(command, 0, "", "")


def test_our_wheel_the_versions_and_an_installer_are_shipped(tmp_path: Path) -> None:
    pip = FakePip()
    made = build(ROOT, tmp_path, run=pip)
    assert made.wheel == tmp_path / "package" / "falcon_ray-0.1.0-py3-none-any.whl"
    assert made.constraints.read_text() == (ROOT / "constraints.txt").read_text()
    assert made.installer.name == "uv-0-py3.whl"
    assert UV in pip.commands[1]


def test_building_again_replaces_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("kept")
    build(ROOT, tmp_path, run=FakePip())
    stale = tmp_path / "package" / "falcon_ray-0.0.1-py3-none-any.whl"
    stale.write_text("")
    build(ROOT, tmp_path, run=FakePip())
    assert not stale.exists()
    assert (tmp_path / "journal.jsonl").read_text() == "kept"


def test_a_directory_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"constraints\.txt is missing"):
        build(tmp_path, tmp_path, run=FakePip())


def test_why_pip_failed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="build the wheel of falcon_ray: ERROR: no network;"):
        build(ROOT, tmp_path, run=FakePip(fails="ERROR: no network"))
