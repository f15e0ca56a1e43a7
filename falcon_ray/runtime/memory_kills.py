"""How many processes the kernel has killed for want of memory, on any node.

A process that is killed so cannot say why it ended; the kernel's counter can. It counts whatever
was killed on a machine, so only what it grew by while a process died says something of that.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.runtime.node_health import alive_nodes

VMSTAT = Path("/proc/vmstat")
ASK_TIMEOUT_S = 10.0

_COUNTER = "oom_kill"


def memory_kills() -> int:
    """On this machine since it started; 0 where the system does not count them."""
    try:
        text = VMSTAT.read_text()
    except OSError:
        return 0
    return read_counter(text)


def read_counter(vmstat: str) -> int:
    """The counter in the text of /proc/vmstat, 0 where it is not there."""
    counts = dict(line.split(maxsplit=1) for line in vmstat.splitlines() if " " in line)
    return int(counts.get(_COUNTER, 0))


def memory_kills_by_node() -> Mapping[str, int]:
    """The same on every live node; those that do not answer are left out."""
    ask = ray.remote(num_cpus=0, max_retries=0)(memory_kills)
    asked = {
        ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(): (node)
        for node in alive_nodes()
    }
    answered, late = ray.wait(list(asked), num_returns=len(asked), timeout=ASK_TIMEOUT_S)
    for each in late:
        ray.cancel(each)
    counts: dict[str, int] = {}
    for each in answered:
        with contextlib.suppress(RayError):
            counts[asked[each]] = ray.get(each)
    return counts
