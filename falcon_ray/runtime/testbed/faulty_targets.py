"""Models and an application that go wrong in known ways, for studies and tests of trials.

Each goes wrong for a real reason, inside the replica that serves it. None knows what a trial
makes of it. Limits are relative to what the process uses when they are set.
"""

import os
import resource
import threading
import time
from typing import Any

import torch
from ray import serve
from torch import Tensor, nn

from falcon_ray.runtime.testbed import memory_cgroup
from falcon_ray.space.configuration import Configuration

MIB = 2**20
N_FEATURES = 64
MEMORY_GROUP = "falcon-fault"
"""Control group that `killed_*` enter; it has to be there."""
MEMORY_GROUP_BYTES = 256 * MIB
N_GOOD_FORWARDS = 2
"""A replica runs its model twice before it answers: in float32, and in the dtype asked for."""
GOOD_S = 1.4
"""A model that goes wrong while it is measured is well for so long after its first request."""

_HOG_BYTES = 4096 * MIB
_ROOM_BYTES = 256 * MIB
_HOG_STEP_BYTES = 32 * MIB
_REQUEST_S = 0.002


def healthy() -> nn.Module:
    """A model that takes 2 ms for any batch."""
    return _Steady()


def raising() -> nn.Module:
    """Its constructor raises."""
    raise RuntimeError("the weights are nowhere to be found")


def exiting() -> nn.Module:
    """Its constructor ends the process."""
    os._exit(3)


def hanging() -> nn.Module:
    """Its constructor never returns."""
    threading.Event().wait()
    return healthy()


def hungry() -> nn.Module:
    """Its constructor needs more memory than its process may address."""
    _limit_address_space()
    return _Holding(torch.ones(_HOG_BYTES, dtype=torch.uint8))


def killed() -> nn.Module:
    """The kernel kills its process in its constructor, for want of memory."""
    memory_cgroup.enter(MEMORY_GROUP)
    return _Holding(torch.ones(_HOG_BYTES, dtype=torch.uint8))


def growing() -> nn.Module:
    """Keeps memory of every request until its process may address no more."""
    return _Growing(_limit_address_space)


def growing_until_killed() -> nn.Module:
    """Keeps memory of every request until the kernel kills its process."""
    memory_cgroup.enter(MEMORY_GROUP)
    return _Growing(lambda: None)


def hanging_at_once() -> nn.Module:
    """Never answers its first request."""
    return _Hanging(good_s=0.0)


def hanging_later() -> nn.Module:
    """Answers for a while, then never again."""
    return _Hanging(good_s=GOOD_S)


def breaking() -> nn.Module:
    """Raises at every request."""
    return _Breaking()


def crashing() -> nn.Module:
    """Ends its process at its first request, whenever it is started."""
    return _Crashing()


def inputs(batch_size: int) -> Tensor:
    """Example inputs of all these models."""
    return torch.ones(batch_size, N_FEATURES)


healthy_inputs = raising_inputs = exiting_inputs = hanging_inputs = hungry_inputs = inputs
killed_inputs = growing_inputs = growing_until_killed_inputs = hanging_at_once_inputs = inputs
hanging_later_inputs = breaking_inputs = crashing_inputs = inputs


def _limit_address_space() -> None:
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: PTH123, SIM115
    used = pages * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM_BYTES, hard))


class _Steady(nn.Module):
    """Sleeps for a known time and returns its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self._n_forwards = 0
        self._first_s: float | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(_REQUEST_S)
        self._n_forwards += 1
        if self._n_forwards > N_GOOD_FORWARDS:
            if self._first_s is None:
                self._first_s = time.monotonic()
            self.serve(time.monotonic() - self._first_s)
        return inputs

    def serve(self, seconds: float) -> None:
        """Do what is done for a request, `seconds` after the first one."""


class _Holding(_Steady):
    def __init__(self, held: Tensor) -> None:
        super().__init__()
        self._held = held


class _Growing(_Steady):
    def __init__(self, at_first: Any) -> None:  # noqa: ANN401 - a function without arguments
        super().__init__()
        self._at_first = at_first
        self._held: list[Tensor] = []

    def serve(self, seconds: float) -> None:
        del seconds
        if not self._held:
            self._at_first()
        self._held.append(torch.ones(_HOG_STEP_BYTES, dtype=torch.uint8))


class _Hanging(_Steady):
    def __init__(self, *, good_s: float) -> None:
        super().__init__()
        self._good_s = good_s

    def serve(self, seconds: float) -> None:
        if seconds >= self._good_s:
            threading.Event().wait()


class _Breaking(_Steady):
    def serve(self, seconds: float) -> None:
        raise ValueError(f"the model broke in service after {seconds:.0f} s")


class _Crashing(_Steady):
    def serve(self, seconds: float) -> None:
        del seconds
        os._exit(3)


@serve.deployment(
    num_replicas=None,
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 0.1,
        "downscale_delay_s": 600,
    },
    max_ongoing_requests=4,
    ray_actor_options={"num_cpus": 0.1},
    graceful_shutdown_timeout_s=0.5,
    graceful_shutdown_wait_loop_s=0.5,
)
class _Growable:
    """An answer in 2 ms from as many replicas as the load calls for."""

    async def __call__(self, number: int) -> int:
        time.sleep(_REQUEST_S)  # noqa: ASYNC251 - computes, as a model does
        return number


def autoscaled(configuration: Configuration) -> serve.Application:  # noqa: ARG001 - any is alike
    """An application that gets a second replica soon after load begins."""
    return _Growable.bind()


def autoscaled_request() -> int:
    """An example request of `autoscaled`."""
    return 7
