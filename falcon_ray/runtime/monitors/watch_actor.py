"""Watches on one node for all trials that are there, in an actor.

It watches processes and counts what the kernel killed. It does not know trials.
"""

import os
from collections.abc import Mapping, Sequence

from falcon_ray.runtime.cgroups import Cgroups
from falcon_ray.runtime.monitors.node_watch import LocalWatch, NodeUsage
from falcon_ray.runtime.monitors.nvml_monitor import open_nvml


class WatchActor:
    """A number of `LocalWatch`, each by the name of whoever has begun it."""

    def __init__(self) -> None:
        self._watches: dict[str, LocalWatch] = {}

    def begin(self, name: str, pids: Sequence[int]) -> None:
        """Watch processes of this node, in the place of those watched by that name before."""
        self.finish(name)
        self._watches[name] = local_watch(pids)

    def usage(self, name: str) -> NodeUsage:
        """See `LocalWatch.usage`; of a watch that has begun."""
        return self._watches[name].usage()

    def finish(self, name: str) -> None:
        """End a watch, if there is one of that name."""
        if watch := self._watches.pop(name, None):
            watch.stop()

    def kills(self) -> Mapping[str, int]:
        """See `kills_of_this_group`; Ray's workers on one node are in one group."""
        return kills_of_this_group()


def local_watch(pids: Sequence[int]) -> LocalWatch:
    """Watches processes of this machine with all that it offers."""
    return LocalWatch(pids, nvml=open_nvml(), cgroups=Cgroups())


def kills_of_this_group() -> Mapping[str, int]:
    """Kills so far in the group of this process and below it; empty where nothing counts them."""
    counter = Cgroups().kill_counter(os.getpid())
    return {} if counter is None else counter.read()
