"""Ways to serve a language model on one node, as columns, and the facts of the GPUs they run on.

The module checks what it is given and knows no model and no time. Facts of GPUs that the catalogue
does not carry, the link and the four-bit rate, are arguments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.llm.architecture import Precision
from falcon_ray.space.configuration import FloatArray

IntArray: TypeAlias = NDArray[np.int64]

PRECISION_NAMES: Mapping[str, Precision | None] = MappingProxyType(
    {
        **{each.value: each for each in Precision},
        "bfloat16": Precision.BF16,
        "float16": Precision.BF16,
        "fp16": Precision.BF16,
        "fp8_block": Precision.FP8,
        "nvfp4": Precision.FP4,
        "mxfp4": Precision.FP4,
        "default": None,
    }
)
"""What a configuration may call a precision; None stands for that of the published weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmGpu:
    """Facts of one type of GPU that decide how fast it serves language models.

    Attributes:
        name: Of the type.
        memory_bytes: What a process can use.
        bandwidth_bytes_per_s: Of its memory.
        flops_per_s: Of dense arithmetic. Weights in a precision that is missing are widened to
            16 bits, as kernels for weight-only quantisation do (Frantar et al., 2024).
        link_bytes_per_s: To another GPU of the same node, one way.

    Raises:
        InputError: A number is not positive, or there is no 16-bit rate.
    """

    name: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    flops_per_s: Mapping[Precision, float]
    link_bytes_per_s: float

    def __post_init__(self) -> None:
        numbers = (self.memory_bytes, self.bandwidth_bytes_per_s, self.link_bytes_per_s)
        rates = self.flops_per_s.values()
        if Precision.BF16 not in self.flops_per_s or not min(*numbers, *rates) > 0:
            raise InputError(
                f"facts of {self.name} must be positive and hold a 16-bit rate, got {self}"
            )

    @classmethod
    def of_device(
        cls, device: Device, *, link_bytes_per_s: float, fp4_flops_per_s: float | None = None
    ) -> "LlmGpu":
        """The facts of a device, and the two that it does not carry."""
        rates = {Precision.BF16: max(device.peak("bfloat16"), device.peak("float16"))}
        if "fp8" in device.peak_flops_per_s:
            rates[Precision.FP8] = device.peak("fp8")
        if fp4_flops_per_s is not None:
            rates[Precision.FP4] = fp4_flops_per_s
        return cls(
            name=device.name,
            memory_bytes=device.memory_bytes,
            bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
            flops_per_s=rates,
            link_bytes_per_s=link_bytes_per_s,
        )

    def rate(self, precision: Precision) -> float:
        """FLOP/s with weights of a precision."""
        return self.flops_per_s.get(precision, self.flops_per_s[Precision.BF16])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LlmDeployments:
    """Ways to serve one model, as columns of length n.

    Attributes:
        gpus: The types of GPU that occur.
        gpu: Index into `gpus`, shape (n,).
        precisions: Names of precisions that occur, e.g. ("fp8", "default").
        precision: Index into `precisions`, shape (n,).
        backends: Serving engines that occur, e.g. ("vllm", "sglang").
        backend: Index into `backends`, shape (n,).
        n_gpus: Of one instance, shape (n,).
        expert_parallel: GPUs that whole experts are spread over, shape (n,); 1 divides each.
        attention_dp: Whether attention is divided by requests instead of heads, shape (n,).
        concurrency: Requests that are always under way, shape (n,).
        isl: Tokens of a prompt, shape (n,).
        osl: Tokens of an answer, shape (n,).

    Raises:
        InputError: The columns differ in length, a name is unknown or a number out of range.
    """

    gpus: tuple[LlmGpu, ...]
    gpu: IntArray
    precisions: tuple[str, ...]
    precision: IntArray
    backends: tuple[str, ...]
    backend: IntArray
    n_gpus: FloatArray
    expert_parallel: FloatArray
    attention_dp: NDArray[np.bool_]
    concurrency: FloatArray
    isl: FloatArray
    osl: FloatArray

    def __post_init__(self) -> None:
        columns = (self.gpu, self.precision, self.backend, self.attention_dp, *self._numbers)
        if len({column.shape for column in columns}) != 1 or self.n_gpus.ndim != 1:
            raise InputError(
                "columns of deployments must have one length, got shapes "
                f"{sorted({column.shape for column in columns})}"
            )
        for name in self.precisions:
            if name not in PRECISION_NAMES:
                raise InputError(f"precision {name!r} is none of {', '.join(PRECISION_NAMES)}")
        if any(column.size and not column.min() >= 1 for column in self._numbers):
            raise InputError(
                "n_gpus, expert_parallel, concurrency, isl and osl must all be 1 or more"
            )

    @property
    def _numbers(self) -> tuple[FloatArray, ...]:
        return self.n_gpus, self.expert_parallel, self.concurrency, self.isl, self.osl

    @classmethod
    def of_columns(cls, columns: Mapping[str, Any], gpus: Mapping[str, LlmGpu]) -> "LlmDeployments":
        """Take the columns of a table or mapping that the attributes name.

        Args:
            columns: "gpu_type", "precision" and "backend" as names, the other attributes as
                numbers; each of length n or a single value.
            gpus: Facts by the names in "gpu_type".

        Raises:
            InputError: A column is missing or a GPU has no facts.
        """
        names = ("gpu_type", "precision", "backend")
        numbers = ("n_gpus", "expert_parallel", "attention_dp", "concurrency", "isl", "osl")
        missing = [name for name in (*names, *numbers) if name not in columns]
        if missing:
            raise InputError(f"deployments lack {', '.join(missing)}; give a value or a column")
        arrays = [np.asarray(columns[name]) for name in (*names, *numbers)]
        try:
            arrays = np.broadcast_arrays(np.zeros(1), *arrays)[1:]
        except ValueError as error:
            raise InputError(f"columns of deployments must have one length: {error}") from error
        indices: list[IntArray] = []
        values: list[tuple[str, ...]] = []
        for column in arrays[:3]:
            index, found = pd.factorize(column.astype(object))
            indices.append(index.astype(np.int64))
            values.append(tuple(str(each) for each in found))
        unknown = [name for name in values[0] if name not in gpus]
        if unknown:
            raise InputError(
                f"nothing is known of GPU {unknown[0]}; known are {', '.join(sorted(gpus))}"
            )
        n_gpus, expert_parallel, attention_dp, concurrency, isl, osl = (
            column.astype(np.float64) for column in arrays[3:]
        )
        return cls(
            gpus=tuple(gpus[name] for name in values[0]),
            gpu=indices[0],
            precisions=values[1],
            precision=indices[1],
            backends=values[2],
            backend=indices[2],
            n_gpus=n_gpus,
            expert_parallel=expert_parallel,
            attention_dp=attention_dp > 0,
            concurrency=concurrency,
            isl=isl,
            osl=osl,
        )

    def gpu_facts(self, facts: Sequence[float]) -> FloatArray:
        """One number of each of `gpus` as a column, shape (n,)."""
        return np.array(facts, dtype=np.float64)[self.gpu]
