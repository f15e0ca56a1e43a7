"""What is there that a trial may leave behind: applications, actors, processes, files.

Two inventories, one from before and one from after, show what was left. The module does not know
what a trial does, and removes nothing.
"""

import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil
from ray import serve
from ray._private.state import actors as actor_table  # the public one needs the dashboard
from ray.util import placement_group_table

POLL_S = 0.1
RAY_FOLDER = "ray"
"""Where Ray keeps its sessions and their logs in a directory of temporary files."""
KEPT = frozenset({"ServeController", "ProxyActor", "CurveStore", "ClusterLedger"})
"""Actors that outlive trials and searches on purpose."""
_WORKER = "ray::"
_RAYS_OWN = (
    *("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent"),
    *(f"{_WORKER}{each}" for each in KEPT),
)


@dataclass(frozen=True, slots=True)
class LiveActor:
    """An actor that is alive or still starting.

    Attributes:
        actor_id: Of Ray.
        class_name: Of the actor.
        pid: Of its process, 0 while it has none.
    """

    actor_id: str
    class_name: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What is there at one moment, each thing by a name for people.

    Attributes:
        apps: Serve applications.
        actors: That live, those that are kept on purpose left out.
        groups: Placement groups that hold resources.
        processes: Of Ray's workers below this process that are busy with something.
        files: In a directory of interest; an empty one that nobody locks is a lock at rest.
    """

    apps: frozenset[str]
    actors: frozenset[str]
    groups: frozenset[str]
    processes: frozenset[str]
    files: frozenset[str]

    def left_since(self, before: "Inventory") -> tuple[str, ...]:
        """What is here and was not there before, the kind of each with it."""
        return tuple(
            f"{kind.name}: {name}"
            for kind in fields(self)
            for name in sorted(getattr(self, kind.name) - getattr(before, kind.name))
        )


def live_actors() -> tuple[LiveActor, ...]:
    """Every actor of the connected Ray that is alive or on its way."""
    table: dict[str, dict[str, Any]] = actor_table()
    return tuple(
        LiveActor(actor_id, each["ActorClassName"], int(each.get("Pid") or 0))
        for actor_id, each in table.items()
        if each["State"] != "DEAD"
    )


def inventory(directory: Path | None = None) -> Inventory:
    """Take one.

    Args:
        directory: Whose files are of interest, none where it is None.
    """
    groups: dict[str, dict[str, Any]] = placement_group_table()
    return Inventory(
        apps=frozenset(serve.status().applications),
        actors=frozenset(
            f"{each.class_name} {each.actor_id}"
            for each in live_actors()
            if each.class_name not in KEPT
        ),
        groups=frozenset(name for name, each in groups.items() if each["state"] != "REMOVED"),
        processes=frozenset(_busy_workers()),
        files=frozenset() if directory is None else kept_files(directory),
    )


def left_behind(
    before: Inventory, *, directory: Path | None = None, timeout_s: float
) -> tuple[str, ...]:
    """What is still there after `timeout_s` that was not there before; empty once nothing is."""
    deadline = time.monotonic() + timeout_s
    while left := inventory(directory).left_since(before):
        if time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)
    return ()


def kept_files(directory: Path) -> frozenset[str]:
    """Paths below a directory of files that hold something or are locked, without Ray's own."""
    found = (each.relative_to(directory) for each in directory.rglob("*") if _is_kept(each))
    return frozenset(str(each) for each in found if each.parts[0] != RAY_FOLDER)


def _is_kept(path: Path) -> bool:
    """Whether a file holds something, or somebody holds its lock."""
    try:
        with path.open("rb") as file:
            if file.read(1):
                return True
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a directory, or gone meanwhile
        return False
    return False


def _busy_workers() -> Iterator[str]:
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
            if _is_work(title) and process.status() != psutil.STATUS_ZOMBIE:
                yield f"{title.strip()} {process.pid}"
        except psutil.Error:
            continue


def _is_work(title: str) -> bool:
    """Whether a process of that title is a worker that does something which is not Ray's own."""
    return title.startswith(_WORKER) and not title.startswith(_RAYS_OWN)
