"""Everything that is measured on one device, in blocks of rows that can be stored as they come.

It brings together operators, models and a timer. What has been measured before is left out, so
that a run can be interrupted. The module does not know a cluster, nor where rows are stored.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.operators.operator import Operator
from falcon_ray.knowledge.operators.signatures import minimal_bytes
from falcon_ray.knowledge.profile.manifest import OWN_SOURCE
from falcon_ray.profiling.benchmark import Call, Timing, TimingPlan
from falcon_ray.profiling.operator_calls import NoCallError, operator_calls
from falcon_ray.profiling.timers import Setting, Timer

Row: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[object, ...]
Arguments: TypeAlias = tuple[tuple[Tensor, ...], Mapping[str, Tensor]]
"""Positional and keyword arguments of a forward pass."""

OPERATOR_PLAN = TimingPlan(max_s=0.15)
MODEL_PLAN = TimingPlan(min_repeats=3, max_s=0.6, warm_up_s=0.3)
MAX_PASS_S = 1.0
"""A batch size that would take longer, going by the one before, is not tried."""

_BLOCK_S = 5.0
_SHARES = 20
"""Steps that shares are told apart by: hardware gives units in groups, so about what was asked."""


@dataclass(frozen=True, slots=True)
class ModelToRun:
    """A model that is timed as a whole.

    Attributes:
        name: In the profile.
        build: Makes it, in float32 on the CPU.
        inputs: Arguments of a forward pass for a batch size.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Arguments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What to measure.

    Attributes:
        operators: Shapes, whatever their dtype.
        models: Whole models.
        batch_sizes: Of the models, ascending.
        dtypes: Names such as "float32".
        settings: How the device is used.
        done: Latency in microseconds of what is known, by `operator_row_key` and `model_row_key`.
        time_budget_s: After so many seconds nothing more is started; None for no limit.
    """

    operators: Sequence[Operator]
    models: Sequence[ModelToRun]
    batch_sizes: Sequence[int]
    dtypes: Sequence[str]
    settings: Sequence[Setting]
    done: Mapping[Key, float]
    time_budget_s: float | None = None

    @property
    def n_total(self) -> int:
        """Measurements that it consists of."""
        each = len(self.operators) + len(self.models) * len(self.batch_sizes)
        return each * len(self.dtypes) * len(self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows measured since the block before.

    Attributes:
        operators: Of `schemas.OPERATORS`.
        models: Of `schemas.MODELS`.
        skipped: What could not be measured, and why.
        doing: What was measured last, for people.
        n_done: Measurements so far, those known before included.
        n_total: All of them.
        is_last: Whether nothing follows.
    """

    operators: tuple[Row, ...]
    models: tuple[Row, ...]
    skipped: tuple[str, ...]
    doing: str
    n_done: int
    n_total: int
    is_last: bool = False


def operator_row_key(row: Mapping[str, Any]) -> Key:
    """What tells an operator's measurement from others on the same device."""
    return (
        *("operator", row["op"], row["family"], tuple(row["dims"]), row["dtype"]),
        *(row["threads"], round(_SHARES * row["share"])),
    )


def model_row_key(row: Mapping[str, Any]) -> Key:
    """What tells a model's measurement from others on the same device."""
    return (
        *("model", row["model"], row["batch_size"], row["dtype"]),
        *(row["threads"], round(_SHARES * row["share"])),
    )


def measure(
    workload: Workload,
    *,
    device: Device,
    environment: str,
    timer: Timer,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Block]:
    """Measure a workload on the device at hand: first models, then operators.

    Args:
        workload: What to measure.
        device: Names the rows.
        environment: Key that the rows name.
        timer: Of the device.
        clock: For the time budget and the length of blocks, in seconds.

    Yields:
        Blocks of a few seconds each; the last one, which may be empty, is marked as such.

    Raises:
        InputError: A model cannot be built.
    """
    run = _Run(workload, device=device, environment=environment, timer=timer)
    start_s = block_s = clock()
    with torch.inference_mode():
        for _ in chain(run.models(), run.operators()):
            now_s = clock()
            if workload.time_budget_s is not None and now_s - start_s >= workload.time_budget_s:
                break
            if now_s - block_s >= _BLOCK_S:
                yield run.block(is_last=False)
                block_s = now_s
    yield run.block(is_last=True)


@dataclass
class _Rows:
    operators: list[Row] = field(default_factory=list)
    models: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class _Run:
    """One pass over a workload; its generators yield after every measurement."""

    def __init__(
        self, workload: Workload, *, device: Device, environment: str, timer: Timer
    ) -> None:
        self._workload = workload
        self._device = device.name
        self._environment = environment
        self._timer = timer
        self._rows = _Rows()
        self._doing = ""
        self._n_done = 0

    def block(self, *, is_last: bool) -> Block:
        rows, self._rows = self._rows, _Rows()
        return Block(
            operators=tuple(rows.operators),
            models=tuple(rows.models),
            skipped=tuple(rows.skipped),
            doing=self._doing,
            n_done=self._n_done,
            n_total=self._workload.n_total,
            is_last=is_last,
        )

    def models(self) -> Iterator[None]:
        settings = self._workload.settings if self._workload.models else ()
        # What is known stands under the share that the device gave, not the one asked for.
        real = {setting: self._real(setting) for setting in settings}
        for model in self._workload.models:
            module: nn.Module | None = None
            for dtype in self._workload.dtypes:
                for setting, used in real.items():
                    pending = self._pending(model.name, dtype, used)
                    self._n_done += len(self._workload.batch_sizes) - len(pending)
                    if not pending:
                        continue
                    if module is None:
                        module = model.build().to(self._timer.device)
                    module = module.to(getattr(torch, dtype))
                    with self._timer.using(setting):
                        yield from self._model(model, module, dtype, used, pending)

    def operators(self) -> Iterator[None]:
        for dtype in self._workload.dtypes:
            operands = self._timer.operands(getattr(torch, dtype))
            for setting in self._workload.settings:
                with self._timer.using(setting) as share:
                    used = replace(setting, share=share)
                    for operator in self._workload.operators:
                        self._n_done += 1
                        row = self._operator_row(operator, dtype, used)
                        if operator_row_key(row) in self._workload.done:
                            continue
                        self._doing = f"{operator.name}, {dtype}, {used}"
                        try:
                            calls = operator_calls(
                                operator.name, operator.family, operator.dims, operands
                            )
                            timings = self._timer.time(calls, OPERATOR_PLAN)
                        except (NoCallError, RuntimeError) as error:  # torch knows no such kernel
                            self._skip(f"{operator.name} {operator.dims} in {dtype}", error)
                            continue
                        self._rows.operators += [
                            row | _timed(mode, timing) for mode, timing in timings.items()
                        ]
                        yield

    def _real(self, setting: Setting) -> Setting:
        with self._timer.using(setting) as share:
            return replace(setting, share=share)

    def _pending(self, name: str, dtype: str, setting: Setting) -> list[int]:
        """Batch sizes from the first unknown one on, unless what is known says they take long."""
        sizes = self._workload.batch_sizes
        for i, size in enumerate(sizes):
            row = self._model_row(name, size, dtype, setting)
            known_us = self._workload.done.get(model_row_key(row))
            if known_us is None:
                return list(sizes[i:])
            if i + 1 < len(sizes) and known_us * sizes[i + 1] / size > 1e6 * MAX_PASS_S:
                return []
        return []

    def _model(
        self, model: ModelToRun, module: nn.Module, dtype: str, setting: Setting, sizes: list[int]
    ) -> Iterator[None]:
        for i, size in enumerate(sizes):
            self._doing = f"{model.name.partition('#')[0]} at batch {size}, {dtype}, {setting}"
            try:
                call = self._forward(model, module, dtype, size)
                timings = self._timer.time([call], MODEL_PLAN)
                memory_bytes = self._timer.peak_memory_bytes(call)
            except RuntimeError as error:  # out of memory, or no kernel for this dtype
                self._skip(self._doing, error)
                self._n_done += len(sizes) - i
                return
            row = self._model_row(model.name, size, dtype, setting)
            row["peak_memory_bytes"] = memory_bytes
            self._rows.models += [row | _timed(mode, timing) for mode, timing in timings.items()]
            self._n_done += 1
            yield
            next_us = timings["eager"].latency_us * (sizes[i + 1] / size if sizes[i + 1 :] else 0)
            if next_us > 1e6 * MAX_PASS_S:
                self._n_done += len(sizes) - i - 1
                return

    def _forward(self, model: ModelToRun, module: nn.Module, dtype: str, size: int) -> Call:
        def placed(tensor: Tensor) -> Tensor:
            moved = tensor.to(self._timer.device)
            return moved.to(getattr(torch, dtype)) if moved.is_floating_point() else moved

        positional, named = model.inputs(size)
        positional = tuple(placed(each) for each in positional)
        named = {name: placed(each) for name, each in named.items()}
        return lambda: module(*positional, **named)

    def _skip(self, what: str, error: Exception) -> None:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self._rows.skipped.append(f"{what}: {first}")

    def _operator_row(self, operator: Operator, dtype: str, setting: Setting) -> Row:
        return {
            "op": operator.name,
            "family": operator.family.value,
            "dims": list(operator.dims),
            **self._where(dtype, setting),
            "flops": operator.flops,
            "bytes": minimal_bytes(operator.family, operator.name, operator.dims, dtype),
        }

    def _model_row(self, name: str, size: int, dtype: str, setting: Setting) -> Row:
        return {"model": name, "batch_size": size, **self._where(dtype, setting)}

    def _where(self, dtype: str, setting: Setting) -> Row:
        return {
            "dtype": dtype,
            "device": self._device,
            "threads": setting.threads,
            "share": setting.share,
            "environment": self._environment,
            "source": OWN_SOURCE,
        }


def _timed(mode: str, timing: Timing) -> Row:
    return {
        "mode": mode,
        "latency_us": timing.latency_us,
        "relative_sd": timing.relative_sd,
        "n": timing.n,
    }
