"""The least that one request can take on this machine: the model's forward pass, and no more.

Whatever is deployed adds queues, batching and a request path to it, so a latency budget below it
cannot be kept by any configuration here. It does not know what is deployed, nor other machines.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from falcon_ray.errors import InputError
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.torch_model import TORCH_DTYPES, ExampleInputs, build_model, forward
from falcon_ray.space.objective import Slo

RUNS = 10
TIMED_S = 1.0
"""No further run of a slow model once its runs took so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoneLatency:
    """The fastest way to answer one request.

    Attributes:
        milliseconds: Of the fastest run.
        dtype: In which it was.
        threads: With how many.
    """

    milliseconds: float
    dtype: str
    threads: int


def check_budget(slo: Slo, fastest: LoneLatency | None) -> None:
    """Refuse a latency limit that a lone request breaks without any service around it.

    Raises:
        InputError: It does.
    """
    if fastest is None or fastest.milliseconds <= slo.latency_budget_ms:
        return
    threads = "1 thread" if fastest.threads == 1 else f"{fastest.threads} threads"
    raise InputError(
        f"one request alone takes the model {fastest.milliseconds:.3g} ms on this machine at best "
        f"({fastest.dtype}, {threads}), so no configuration answers within latency_budget_ms of "
        f"{slo.latency_budget_ms:g}; give at least {_rounded_up(fastest.milliseconds):g}"
    )


def lone_latency(
    model: ModelReference,
    inputs: ExampleInputs,
    *,
    dtypes: Iterable[str],
    threads: Iterable[int],
    enough_ms: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> LoneLatency | None:
    """Time the forward pass of one request in this process, and take the fastest run of all.

    Args:
        model: Which model.
        inputs: A batch of one.
        dtypes: To try; those that the model does not run in are passed over.
        threads: Numbers of threads to try.
        enough_ms: A run as fast as this is the answer; nothing else is timed.
        clock: Monotonic seconds.

    Returns:
        None where no run succeeded.

    Raises:
        InputError: The model cannot be built.
    """
    counts = sorted(set(threads))
    before = torch.get_num_threads()
    best: LoneLatency | None = None
    try:
        for dtype in dict.fromkeys(dtypes):
            built = build_model(model).to(TORCH_DTYPES[dtype])
            for n_threads in counts:
                torch.set_num_threads(n_threads)
                for seconds in _runs_s(built, inputs, TORCH_DTYPES[dtype], clock):
                    run = LoneLatency(milliseconds=1e3 * seconds, dtype=dtype, threads=n_threads)
                    if run.milliseconds <= enough_ms:
                        return run
                    if best is None or run.milliseconds < best.milliseconds:
                        best = run
    finally:
        torch.set_num_threads(before)
    return best


def _runs_s(
    model: nn.Module, inputs: ExampleInputs, dtype: torch.dtype, clock: Callable[[], float]
) -> Iterator[float]:
    """Seconds of each run; the slow first ones do no harm where the fastest counts."""
    end_s = clock() + TIMED_S
    for _ in range(RUNS):
        start_s = clock()
        try:
            forward(model, inputs, dtype=dtype)
        except RuntimeError:  # an operator that is missing in this dtype
            return
        done_s = clock()
        yield done_s - start_s
        if done_s > end_s:
            return


def _rounded_up(milliseconds: float) -> float:
    """To two significant digits, so that it is no less."""
    step = 10.0 ** (math.floor(math.log10(milliseconds)) - 1)
    return float(f"{math.ceil(milliseconds / step) * step:.2g}")
