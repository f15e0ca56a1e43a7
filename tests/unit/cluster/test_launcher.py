"""Ray's cluster launcher, played by a program that says what Ray says."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster.launcher import head_address, launch, stop
from cluster.node_setup import FAILED
from falcon_ray.errors import ClusterError

CONFIG = {"cluster_name": "trial-0123abcd", "auth": {"ssh_user": "ubuntu"}}
PROGRAM = """
import os, pathlib, sys
print({said!r})
pathlib.Path({seen!r}).write_text("\\n".join([
    " ".join(sys.argv[1:]), os.environ["TMPDIR"], os.environ.get("AWS_PROFILE", "none"),
    os.environ.get("AWS_ACCESS_KEY_ID", "none"),
    oct(os.stat(os.environ["TMPDIR"]).st_mode & 0o777)]))
sys.exit({code})
"""


@dataclass(frozen=True)
class Place:
    """A cluster's directory."""

    path: Path


@dataclass(frozen=True)
class Ray:
    """A program that plays Ray's."""

    place: Place

    def program(self, said: str, code: int = 0) -> list[str]:
        text = PROGRAM.format(said=said, code=code, seen=str(self.place.path / "seen"))
        return [sys.executable, "-c", text]

    @property
    def seen(self) -> list[str]:
        """Its arguments, its TMPDIR, its profile, its key, the TMPDIR's mode."""
        return (self.place.path / "seen").read_text().splitlines()


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ray:
    programs = tmp_path / "bin"
    programs.mkdir()
    for each in ("ssh", "rsync"):
        (programs / each).write_text("#!/bin/sh\nexit 1\n")
        (programs / each).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return Ray(Place(tmp_path))


def test_the_file_is_written_for_its_user_alone_and_ray_is_told_to_forget_old_ones(
    ray: Ray,
) -> None:
    lines: list[str] = []
    launch(CONFIG, ray.place, ray=ray.program("\x1b[32mLaunched\x1b[39m"), say=lines.append)
    file = ray.place.path / "ray.yaml"
    assert yaml.safe_load(file.read_text()) == CONFIG
    assert file.stat().st_mode & 0o777 == 0o600
    assert ray.seen[0] == f"up --no-config-cache -y {file}"
    assert lines == ["Launched"]


def test_what_ray_writes_beside_is_in_a_private_directory_that_goes(ray: Ray) -> None:
    launch(CONFIG, ray.place, ray=ray.program("fine"))
    scratch, *_, mode = ray.seen[1:]
    assert not Path(scratch).exists()
    assert mode == "0o700"


def test_ray_takes_the_credentials_of_the_profile_that_is_named(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another account's")
    launch(CONFIG, ray.place, profile="mine", ray=ray.program("fine"))
    assert ray.seen[2:4] == ["mine", "none"]
    launch(CONFIG, ray.place, ray=ray.program("fine"))
    assert ray.seen[2:4] == ["none", "another account's"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            f"Collecting torch\n{FAILED} install falcon_ray\nboo",
            "the head cannot install falcon_ray",
        ),
        ("botocore: UnauthorizedOperation: no", "AWS does not permit it"),
        ("create_instances: VcpuLimitExceeded", "quota"),
        ("InsufficientInstanceCapacity", "no such instance to give"),
        ("Exception: wait_ready timeout exceeded.", "cannot be reached by SSH.*ssh_from"),
        ("SSH connection was being refused for 30 seconds.", "cannot be reached by SSH"),
        ("node detected as terminated.", "ended while it was set up"),
        ("first\nsomething else\n!!!", "something else"),
        ("", "ended with 1"),
    ],
)
def test_why_no_head_is_up_is_one_line_with_a_next_step(ray: Ray, said: str, expected: str) -> None:
    with pytest.raises(ClusterError, match=expected) as raised:
        launch(CONFIG, ray.place, ray=ray.program(said, 1))
    assert "\n" not in str(raised.value)
    assert "down" in str(raised.value)
    assert raised.value.exit_code == 4
    assert (ray.place.path / "ray.log").read_text() == "".join(
        f"{line}\n" for line in said.splitlines() if line
    )


def test_without_rsync_nothing_is_launched(ray: Ray) -> None:
    (ray.place.path / "bin" / "rsync").unlink()
    with pytest.raises(ClusterError, match="rsync is not installed"):
        launch(CONFIG, ray.place, ray=ray.program("fine"))
    assert not (ray.place.path / "ray.yaml").exists()


def test_the_address_of_a_head_is_what_ssh_takes(ray: Ray) -> None:
    launch(CONFIG, ray.place, ray=ray.program("fine"))
    assert head_address(ray.place, ray=ray.program("Some notice\n198.51.100.4")) == (
        "ubuntu@198.51.100.4"
    )


def test_a_head_that_is_gone_has_no_address(ray: Ray) -> None:
    launch(CONFIG, ray.place, ray=ray.program("fine"))
    with pytest.raises(ClusterError, match=r"no head runs .*not found.*up"):
        head_address(ray.place, ray=ray.program("Head node of cluster (x) not found!", 1))


def test_what_was_never_launched_from_here_has_no_address_and_nothing_to_stop(ray: Ray) -> None:
    with pytest.raises(ClusterError, match="nothing was launched from this machine"):
        head_address(ray.place, ray=ray.program("198.51.100.4"))
    assert not stop(ray.place, ray=ray.program("fine"))


def test_stopping_says_whether_ray_is_sure(ray: Ray) -> None:
    launch(CONFIG, ray.place, ray=ray.program("fine"))
    assert stop(ray.place, ray=ray.program("No nodes remaining."))
    assert ray.seen[0].startswith("down -y ")
    assert not stop(ray.place, ray=ray.program("no subnet", 1))
