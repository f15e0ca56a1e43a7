import logging
import pkgutil
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from falcon_ray.errors import InputError
from falcon_ray.knowledge.operators.operator import Family, Operator
from falcon_ray.profiling.profiled_run import profiled_run
from falcon_ray.profiling.trace import Inputs, TracedModel, trace
from falcon_ray.profiling.zoo.registry import REFERENCE_MODELS


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.conv1d = nn.Conv1d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x)), inplace=True)
        x = torch.cat([self.grouped(x), self.depthwise(x)], dim=1)
        x += 1
        first, _ = functional.dropout(x, training=self.training).chunk(2, dim=1)
        return self.conv1d(self.up(functional.max_pool2d(first, 2)).flatten(2))


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.gru = nn.GRU(16, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 50)

    def forward(self, words: Tensor) -> dict[str, Tensor]:
        x, _ = self.gru(self.words(words))
        x, _ = self.lstm(x)
        x, _ = self.attention(x, x, x, need_weights=False)
        mask = torch.arange(words.shape[1], device=words.device) > 2
        x = functional.layer_norm(x.masked_fill(mask[None, :, None], 0.0), (8,))
        return {"logits": self.out(x).softmax(-1), "mean": x.mean(1)}


class Scaled(nn.Module):
    def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
        return x * scale


class NeedsValues(nn.Module):
    """Its factory reads values, which meta tensors do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = torch.linspace(0, 1, 3)[1].item()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.rate


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x.exp()
        return -x


class Loops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row.exp() for row in x])


class Caches(nn.Module):
    """The first forward pass does more than those after it."""

    def __init__(self) -> None:
        super().__init__()
        self.cached: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cached is None:
            self.cached = torch.arange(8).cos()
        return x * self.cached


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.out = nn.Linear(8, 10, bias=False)
        self.out.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.words(words))


class FailsToBuild(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        raise KeyError("width")


def images(batch_size: int) -> Tensor:
    return torch.zeros(batch_size, 3, 8, 8)


def words(batch_size: int) -> Tensor:
    return torch.zeros(batch_size, 5, dtype=torch.int64)


def vectors(batch_size: int) -> Tensor:
    return torch.ones(batch_size, 8)


def counts(operators: tuple[Operator, ...]) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for each in operators:
        key = (each.name, each.dims, each.shapes, each.flops, each.bytes_read, each.bytes_written)
        found[key] += each.count
    return found


def test_names_shapes_and_counts_equal_the_profilers_top_level_events() -> None:
    static = TracedModel(Convolutions, model="convolutions").trace(images(2))
    real = profiled_run(Convolutions, images(2))
    assert Counter((each.name, each.shapes) for each in static.operators) == real.calls


@pytest.mark.parametrize("name", ["lstm", "ncf", "dlrm"])
def test_reference_models_are_traced_as_they_run(name: str) -> None:
    build = pkgutil.resolve_name(REFERENCE_MODELS[name].factory)
    inputs = pkgutil.resolve_name(REFERENCE_MODELS[name].inputs)
    static = TracedModel(build, model=name).trace(inputs(2))
    real = profiled_run(build, inputs(2))
    assert Counter((each.name, each.shapes) for each in static.operators) == real.calls
    assert 0.9 < static.activation_bytes / real.peak_bytes < 1.1


@pytest.mark.parametrize(("build", "inputs"), [(Convolutions, images), (Sequences, words)])
def test_static_and_running_traces_agree(
    build: Callable[[], nn.Module], inputs: Callable[[int], Inputs]
) -> None:
    static = trace(build, inputs, model="static")
    running = trace(build, inputs, model="running", by_running=True)
    assert (static.low, static.high) == (running.low, running.high)
    assert static.activation_bytes == running.activation_bytes
    assert static.parameter_bytes == running.parameter_bytes


@pytest.mark.parametrize(("build", "inputs"), [(Convolutions, images), (Sequences, words)])
def test_two_batch_sizes_give_every_other_one(
    build: Callable[[], nn.Module], inputs: Callable[[int], Inputs]
) -> None:
    decomposition = trace(build, inputs, model="model")
    direct = TracedModel(build, model="model").trace(inputs(7))
    assert counts(decomposition.at(7)) == counts(direct.operators)


def test_peak_memory_of_one_moment_is_extrapolated_exactly() -> None:
    decomposition = trace(Convolutions, images, model="convolutions")
    direct = TracedModel(Convolutions, model="convolutions").trace(images(7))
    assert decomposition.activation_bytes_at(np.array([7.0])) == [direct.activation_bytes]


def test_peak_memory_of_changing_moments_is_bounded_from_above() -> None:
    class Grows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.zeros(960)
            return x.repeat(8, 1)

    decomposition = trace(Grows, vectors, model="grows")
    module = TracedModel(Grows, model="grows")
    # Of a sample, the input has 8 floats and the result 8 * 8.
    assert module.trace(vectors(2)).activation_bytes == 4 * (960 + 2 * 8)
    assert module.trace(vectors(100)).activation_bytes == 4 * 100 * (8 + 64)
    bound = decomposition.activation_bytes_at(np.array([2.0, 100.0]))
    assert bound.tolist() == [4 * (960 + 2 * 8), 4 * (960 + 2 * 8 + 98 * (8 + 64))]


def test_equal_calls_are_merged_in_the_order_of_their_first() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 4))
    low = trace(lambda: model, vectors, model="mlp").low
    assert [(each.name, each.dims, each.count) for each in low] == [
        ("linear", (2, 8, 8), 2),
        ("tanh", (16, 16), 1),
        ("linear", (2, 4, 8), 1),
    ]


def test_a_linear_layer_reads_input_weight_and_bias() -> None:
    (linear,) = trace(lambda: nn.Linear(8, 4), vectors, model="linear").low
    assert linear.family is Family.LINEAR
    assert linear.shapes == ((2, 8), (4, 8), (4,))
    assert linear.flops == 2 * 2 * 4 * 8
    assert linear.bytes_read == 4 * (2 * 8 + 4 * 8 + 4)
    assert linear.bytes_written == 4 * (2 * 4)


def test_peak_memory_counts_what_is_alive_at_once() -> None:
    class Chain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.exp()
            z = y.view(-1).relu_()  # no new memory
            y = z.exp()
            del z  # the second of three is dropped here
            return y.exp()

    low, high = trace(Chain, vectors, model="chain").activation_bytes
    assert low == 4 * 8 * 2 * 3  # input and two of the three results
    assert high == 2 * low


def test_tied_parameters_count_once() -> None:
    decomposition = trace(Tied, words, model="tied")
    assert decomposition.parameter_bytes == 4 * 10 * 8


def test_keyword_inputs_reach_forward_by_name() -> None:
    decomposition = trace(
        Scaled, lambda batch: {"x": vectors(batch), "scale": torch.ones(batch, 1)}, model="scaled"
    )
    assert [each.shapes for each in decomposition.low] == [((2, 8), (2, 1))]


def test_tensors_from_outside_the_module_are_followed_through_views() -> None:
    outside = torch.ones(8, 3)

    class Closes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            outside.t().mul_(2)
            return x @ outside

    low = trace(Closes, vectors, model="closes").low
    assert [(each.name, each.dims) for each in low] == [
        ("t", (0, 0)),
        ("mul_", (24, 24)),
        ("matmul", (2, 3, 8)),
    ]
    assert outside.sum() == 24  # nothing was computed


def test_a_factory_that_needs_values_is_run_for_real() -> None:
    assert [each.name for each in trace(NeedsValues, vectors, model="m").low] == ["mul"]


def test_a_cache_is_traced_when_it_is_warm() -> None:
    assert [each.name for each in trace(Caches, vectors, model="m").low] == ["mul"]


def test_attention_modules_come_apart_into_operators_with_a_family() -> None:
    decomposition = trace(
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        lambda batch: torch.zeros(batch, 5, 8),
        model="encoder",
    )
    assert Family.ATTENTION in {each.family for each in decomposition.low}
    assert decomposition.uncovered == ()


def test_operators_without_a_rule_are_listed() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft(x).abs()

    decomposition = trace(Spectrum, vectors, model="spectrum")
    assert decomposition.uncovered == ("fft_rfft",)
    assert decomposition.low[0].bytes_read == 4 * 2 * 8


def test_data_dependent_control_flow_names_the_line_and_the_way_out() -> None:
    line = Decides.forward.__code__.co_firstlineno + 1
    with pytest.raises(InputError) as caught:
        trace(Decides, vectors, model="app:decides")
    message = str(caught.value)
    assert f"{__file__}:{line}" in message
    assert "falcon-ray profile --model app:decides" in message
    assert "\n" not in message


def test_data_dependent_control_flow_can_be_followed_by_running() -> None:
    low = trace(Decides, vectors, model="decides", by_running=True).low
    assert [each.name for each in low] == ["sum", "gt", "is_nonzero", "exp"]


@pytest.mark.parametrize(
    ("build", "inputs", "expected"),
    [
        (Loops, vectors, "different operators at batch 2 and 4"),
        (lambda: nn.Linear(3, 3), vectors, r"fails on its example input \(float32\[2, 8\]\)"),
        (FailsToBuild, vectors, "building model failed: KeyError: 'width'"),
        (lambda: 3, vectors, "gave int; its factory must return an nn.Module"),
        (
            lambda: nn.Linear(8, 8),
            lambda batch: vectors(batch // 0),
            "for a batch of 2 failed: ZeroDivision",
        ),
    ],
)
def test_what_cannot_be_traced_is_said_in_one_line(
    build: Callable[[], nn.Module],
    inputs: Callable[[int], Inputs],
    expected: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        trace(build, inputs, model="model")
    assert "\n" not in str(caught.value)
    assert not caplog.records  # torch logs the traceback of a failing kernel


def test_tracing_leaves_torchs_settings_as_they_were() -> None:
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = torch.backends.mha.get_fastpath_enabled(), logger.level
    trace(lambda: nn.Linear(8, 8), vectors, model="linear")
    assert (torch.backends.mha.get_fastpath_enabled(), logger.level) == before


class ComparesSamples(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x.T


def test_work_that_grows_with_the_square_of_the_batch_is_refused() -> None:
    with pytest.raises(InputError, match="does not grow in proportion to the batch"):
        trace(ComparesSamples, lambda n: torch.zeros(n, 64), model="app:compares")


def test_a_model_that_calls_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="app:nothing calls no operator"):
        trace(nn.Identity, lambda n: torch.zeros(n, 64), model="app:nothing")
