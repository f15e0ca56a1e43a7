"""Which model a user means, and what one request for it carries; nothing here needs torch.

A process that only runs trials knows a model by this, and does not import what it is made of.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from falcon_ray.runtime.references import Reference

Array: TypeAlias = NDArray[Any]
Sample: TypeAlias = tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class ModelReference:
    """Which model, and how to make an input for it; plain values that can cross processes.

    Attributes:
        factory: A function without required arguments that returns an `nn.Module`.
        seed: Seeds torch before the factory runs, so that random weights repeat.
        input_shape: Shape of one sample, where there is no `<factory>_inputs` function.
        input_dtype: Its dtype, as torch names it.
    """

    factory: Reference
    seed: int = 0
    input_shape: tuple[int, ...] | None = None
    input_dtype: str = "float32"


def one_line(error: BaseException) -> str:
    """An exception as its type and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
