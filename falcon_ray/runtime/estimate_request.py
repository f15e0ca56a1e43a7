"""What a user may ask of an estimate: fields are keywords, flags and YAML keys alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import did_you_mean
from falcon_ray.space.dimension import Value
from falcon_ray.space.objective import Slo, optional_slo

THIS_CPU = "cpu"
"""Names the machine that the estimate is made on, among devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRequest:
    """Everything that an estimate can be told; all of it has a default but the model.

    Attributes:
        model: A reference model's name, `package.module:factory`, `path/to/file.py:factory`, or
            a `config.json` of Hugging Face for a language model.
        devices: GPU types, and "cpu" for this machine; by default every GPU type that can be
            rented, and this machine where it was profiled.
        search_space: Values by dimension name, over those of the default space.
        space_constraints: Further constraint expressions.
        latency_budget_ms: Latency limit; without it the score is saturation throughput.
        latency_percentile: Share of requests, in percent, that has to stay within it.
        input_shape: Shape of one sample, where the factory has no `<factory>_inputs` function.
        input_dtype: Its dtype.
        isl: Tokens of a prompt, for a language model.
        osl: Tokens of an answer, for a language model.
        top: How many of the best configurations are shown.
        store: Profile to read beside the packaged one; by default the user's own.

    Raises:
        InputError: A value is out of range.
    """

    model: str
    devices: Sequence[str] = ()
    search_space: Mapping[str, Sequence[Value]] | None = None
    space_constraints: Sequence[str] = ()
    latency_budget_ms: float | None = None
    latency_percentile: float = 99.0
    input_shape: Sequence[int] | None = None
    input_dtype: str = "float32"
    isl: int = 1024
    osl: int = 256
    top: int = 5
    store: str | None = None

    def __post_init__(self) -> None:
        for name in ("isl", "osl", "top"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a positive whole number, got {value!r}")
        for name, values in (self.search_space or {}).items():
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise InputError(f"search_space: {name} must be a list of values, got {values!r}")
        if self.input_shape is not None and isinstance(self.input_shape, str):
            raise InputError(f"input_shape must hold whole numbers, got {self.input_shape!r}")
        if isinstance(self.devices, str):
            raise InputError(f"devices must be a list of names, got {self.devices!r}")

    @property
    def slo(self) -> Slo | None:
        """The latency limit, if there is one."""
        return optional_slo(self.latency_budget_ms, self.latency_percentile)


def request_of(values: Mapping[str, Any]) -> EstimateRequest:
    """A request from values by name; a value of None takes the default.

    Raises:
        InputError: A name is unknown (the nearest known one is said), or a value is wrong.
    """
    known = [each.name for each in fields(EstimateRequest)]
    for name in values:
        if name not in known:
            raise InputError(
                f"unknown option {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}"
            )
    return EstimateRequest(**{name: each for name, each in values.items() if each is not None})
