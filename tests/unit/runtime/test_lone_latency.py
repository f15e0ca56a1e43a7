from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from falcon_ray.errors import InputError
from falcon_ray.runtime.lone_latency import RUNS, LoneLatency, check_budget, lone_latency
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import Reference, load_reference
from falcon_ray.runtime.torch_model import example_inputs
from falcon_ray.space.objective import Slo

# A model whose forward takes as many virtual milliseconds as it is told for its dtype and threads.
TIMED = """
import torch
from torch import nn
MS = {("float32", 1): 20.0, ("float32", 2): 12.0, ("bfloat16", 1): 8.0, ("bfloat16", 2): 9.0}
NOW = [0.0]
class Timed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.runs = 0
    def forward(self, x):
        dtype = str(self.weight.dtype).removeprefix("torch.")
        if dtype == "float16":
            raise RuntimeError("not implemented for 'Half'")
        self.runs += 1
        slow = 100.0 if self.runs == 1 else 0.0  # the first run of all allocates
        NOW[0] += (MS[dtype, torch.get_num_threads()] + slow) / 1e3
        return x * self.weight
def timed(): return Timed()
def timed_inputs(n): return torch.ones(n, 3)
def now():
    return NOW[0]
"""


@pytest.fixture
def model(tmp_path: Path) -> ModelReference:
    (tmp_path / "timed.py").write_text(TIMED, encoding="utf-8")
    return ModelReference(Reference(f"{tmp_path}/timed.py:timed", str(tmp_path)))


@pytest.fixture
def clock(model: ModelReference) -> Callable[[], float]:
    """Virtual seconds, which only the model's forward lets pass."""
    return load_reference(Reference(model.factory.spec.replace(":timed", ":now"), ""))


def fastest(
    model: ModelReference, clock: Callable[[], float], *dtypes: str, enough_ms: float = 0.0
) -> LoneLatency | None:
    return lone_latency(
        model,
        example_inputs(model, 1),
        dtypes=dtypes,
        threads=(1, 2),
        enough_ms=enough_ms,
        clock=clock,
    )


def test_the_fastest_of_all_dtypes_and_threads_is_found(
    model: ModelReference, clock: Callable[[], float]
) -> None:
    found = fastest(model, clock, "float32", "bfloat16")
    assert found is not None
    assert (found.dtype, found.threads) == ("bfloat16", 1)
    assert found.milliseconds == pytest.approx(8.0)
    # Ten runs of each, and the first of each model takes 0.1 s longer.
    assert clock() == pytest.approx(RUNS * (0.020 + 0.012 + 0.008 + 0.009) + 2 * 0.1)


def test_a_dtype_that_the_model_does_not_run_in_is_passed_over(
    model: ModelReference, clock: Callable[[], float]
) -> None:
    found = fastest(model, clock, "float16", "float32")
    assert found is not None
    assert (found.dtype, found.threads) == ("float32", 2)
    assert fastest(model, clock, "float16") is None


def test_nothing_more_is_timed_once_a_run_is_fast_enough(
    model: ModelReference, clock: Callable[[], float]
) -> None:
    found = fastest(model, clock, "float32", "bfloat16", enough_ms=25.0)
    assert found is not None
    assert found.milliseconds == pytest.approx(20.0)
    # The first run takes 120 ms, the second 20.
    assert clock() == pytest.approx(0.140)


def test_the_threads_of_the_process_are_left_as_they_were(
    model: ModelReference, clock: Callable[[], float]
) -> None:
    before = torch.get_num_threads()
    fastest(model, clock, "float32", enough_ms=25.0)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("milliseconds", [49.0, 50.0])
def test_a_budget_that_a_lone_request_keeps_is_accepted(milliseconds: float) -> None:
    check_budget(
        Slo(latency_budget_ms=50), LoneLatency(milliseconds=milliseconds, dtype="f", threads=1)
    )
    check_budget(Slo(latency_budget_ms=50), None)


@pytest.mark.parametrize(
    ("milliseconds", "threads", "said", "at_least"),
    [
        (50.06, 1, "50.1 ms on this machine at best (bfloat16, 1 thread)", "51"),
        (123.4, 2, "123 ms on this machine at best (bfloat16, 2 threads)", "130"),
    ],
)
def test_a_budget_that_it_breaks_is_one_line_with_one_to_try(
    milliseconds: float, threads: int, said: str, at_least: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_budget(
            Slo(latency_budget_ms=50),
            LoneLatency(milliseconds=milliseconds, dtype="bfloat16", threads=threads),
        )
    assert str(caught.value) == (
        f"one request alone takes the model {said}, so no configuration answers within "
        f"latency_budget_ms of 50; give at least {at_least}"
    )
