from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.operators.operator import Family, Operator
from falcon_ray.knowledge.profile.schemas import MODELS, OPERATORS
from falcon_ray.profiling.benchmark import Call, Timing, TimingPlan
from falcon_ray.profiling.device_profile import (
    Block,
    Key,
    ModelToRun,
    Workload,
    measure,
    model_row_key,
    operator_row_key,
)
from falcon_ray.profiling.operands import Operands
from falcon_ray.profiling.timers import Setting

DEVICE = Device(
    name="toy",
    kind=DeviceKind.CPU,
    peak_flops_per_s={"float32": 1e9},
    bandwidth_bytes_per_s=1e9,
    memory_bytes=1e9,
    units=1,
    source="",
)
RELU = Operator(name="relu", family=Family.ACTIVATION, dims=(100, 100))
MATMUL = Operator(name="matmul", family=Family.LINEAR, dims=(4, 5, 6), flops=240.0)
NONSENSE = Operator(name="frobnicate", family=Family.SOFTMAX, dims=(2, 3))


@dataclass
class _Timer:
    """Every call takes as many seconds as it did in the list; the clock is its own.

    With a `group`, units are given in such steps of the share.
    """

    call_s: float = 0.01
    now_s: float = 0.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    settings: list[Setting] = field(default_factory=list)
    group: float = 0.0

    def clock(self) -> float:
        return self.now_s

    def using(self, setting: Setting) -> AbstractContextManager[float]:
        self.settings.append(setting)
        share = setting.share
        return nullcontext(self.group * round(share / self.group) if self.group else share)

    def time(self, calls: Sequence[Call], plan: TimingPlan) -> Mapping[str, Timing]:
        del plan
        result = calls[0]()
        n = len(result) if isinstance(result, Tensor) else 1
        self.now_s += n * self.call_s
        return {"eager": Timing(latency_us=1e6 * n * self.call_s, relative_sd=0.01, n=7)}

    def peak_memory_bytes(self, call: Call) -> float | None:
        del call
        return 42.0

    def operands(self, dtype: torch.dtype) -> Operands:
        return Operands(dtype, self.device, turns_bytes=0, kept_bytes=0, pool_bytes=2**20)


class _Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


TOY = ModelToRun("toy", _Doubling, lambda size: ((torch.ones(size, 3),), {}))
WORKLOAD = Workload(
    operators=(RELU, MATMUL),
    models=(TOY,),
    batch_sizes=(1, 2, 4),
    dtypes=("float32",),
    settings=(Setting(threads=1), Setting(threads=2)),
    done={},
)


def _run(workload: Workload, timer: _Timer) -> list[Block]:
    return list(measure(workload, device=DEVICE, environment="e", timer=timer, clock=timer.clock))


def _done(blocks: list[Block]) -> dict[Key, float]:
    rows = [(operator_row_key(row), row) for block in blocks for row in block.operators]
    rows += [(model_row_key(row), row) for block in blocks for row in block.models]
    return {key: row["latency_us"] for key, row in rows}


def test_rows_fit_the_tables_of_a_profile() -> None:
    (block,) = _run(WORKLOAD, _Timer())
    operators = pa.Table.from_pylist(list(block.operators), schema=OPERATORS)
    models = pa.Table.from_pylist(list(block.models), schema=MODELS)
    assert operators.num_rows == 2 * 2  # operators times settings
    assert models.num_rows == 3 * 2  # batch sizes times settings
    row = block.operators[1]
    assert (row["op"], row["dims"], row["flops"], row["threads"]) == ("matmul", [4, 5, 6], 240.0, 1)
    assert row["bytes"] == 4 * (4 * 6 + 6 * 5 + 4 * 5)  # float32: both factors and the product
    assert block.models[0]["peak_memory_bytes"] == 42.0
    assert block.models[2]["latency_us"] == pytest.approx(4 * 10_000)
    assert (block.n_done, block.n_total, block.is_last) == (10, 10, True)


def test_what_is_known_is_not_measured_again() -> None:
    first = _run(WORKLOAD, _Timer())
    timer = _Timer()
    (again,) = _run(replace(WORKLOAD, done=_done(first)), timer)
    assert again.operators == again.models == ()
    assert (again.n_done, again.is_last) == (10, True)
    assert timer.now_s == 0.0


def test_shares_a_twentieth_apart_are_told_apart() -> None:
    fifth, quarter = (Setting(share=share) for share in (0.2, 0.25))
    known = _done(_run(replace(WORKLOAD, settings=(fifth,)), _Timer()))
    (block,) = _run(replace(WORKLOAD, settings=(fifth, quarter), done=known), _Timer())
    assert {row["share"] for row in block.operators + block.models} == {0.25}
    assert len(block.operators) == 2
    assert len(block.models) == 3


def test_what_is_known_is_looked_up_under_the_share_that_was_given() -> None:
    workload = replace(WORKLOAD, settings=(Setting(share=0.12),))
    (first,) = _run(workload, _Timer(group=0.2))
    assert {row["share"] for row in first.operators + first.models} == {0.2}
    (again,) = _run(replace(workload, done=_done([first])), _Timer(group=0.2))
    assert again.operators == again.models == ()


def test_a_run_goes_on_where_one_before_was_stopped() -> None:
    stopped = _run(replace(WORKLOAD, time_budget_s=0.035), _Timer())
    # Batch 1, 2 and 4 take 10, 20 and 40 ms: the third measurement is the one too many.
    assert [row["batch_size"] for row in stopped[-1].models] == [1, 2, 4]
    assert stopped[-1].n_done == 3
    (rest,) = _run(replace(WORKLOAD, done=_done(stopped)), _Timer())
    assert len(rest.models) == 3
    assert len(rest.operators) == 4


def test_batches_that_would_take_too_long_are_not_tried_now_or_later() -> None:
    slow = _Timer(call_s=0.4)
    blocks = _run(replace(WORKLOAD, operators=()), slow)
    sizes = [row["batch_size"] for block in blocks for row in block.models]
    assert sizes == [1, 2, 1, 2]  # 4 would take 1.6 s
    assert blocks[-1].n_done == blocks[-1].n_total
    again = _run(replace(WORKLOAD, operators=(), done=_done(blocks)), slow)
    assert [block.models for block in again] == [()]


def test_blocks_come_every_few_seconds() -> None:
    timer = _Timer(call_s=0.04)  # the relu of 100 numbers takes 4 s, the product of 4 rows 0.16 s
    blocks = _run(replace(WORKLOAD, models=()), timer)
    assert [len(block.operators) for block in blocks] == [3, 1]
    assert [block.is_last for block in blocks] == [False, True]


def test_what_cannot_be_called_is_told_and_the_rest_measured() -> None:
    (block,) = _run(replace(WORKLOAD, operators=(NONSENSE, RELU), models=()), _Timer())
    assert len(block.operators) == 2
    assert block.skipped == ("frobnicate (2, 3) in float32: torch has no function frobnicate",) * 2


def test_a_model_that_fails_is_told_and_the_rest_measured() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"no kernel for {x.dtype}")

    failing = ModelToRun("failing", Failing, TOY.inputs)
    workload = replace(WORKLOAD, models=(failing, TOY), operators=(), dtypes=("bfloat16",))
    (block,) = _run(workload, _Timer())
    assert {row["model"] for row in block.models} == {"toy"}
    assert "no kernel for torch.bfloat16" in block.skipped[0]
    assert block.n_done == block.n_total


def test_settings_are_used_in_turn() -> None:
    timer = _Timer()
    _run(replace(WORKLOAD, models=()), timer)
    assert [each.threads for each in timer.settings] == [1, 2]
