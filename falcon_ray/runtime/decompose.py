"""A user's model as operators: the same reference that is served, traced instead of run."""

from torch import Tensor

from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.profiling.trace import Inputs, trace
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import load_reference
from falcon_ray.runtime.torch_model import example_inputs


def decompose_model(
    reference: ModelReference, *, name: str, by_running: bool = False
) -> Decomposition:
    """Decompose the model that a reference names, without weights and without running it.

    Args:
        reference: Factory and example inputs.
        name: What the user called it.
        by_running: Whether to run it for real instead, as models need whose control flow
            depends on values.

    Raises:
        InputError: It does not resolve, or cannot be traced.
    """
    factory = load_reference(reference.factory)

    def inputs(batch_size: int) -> Inputs:
        made = example_inputs(reference, batch_size)
        if made.names:
            named: dict[str, Tensor] = dict(zip(made.names, made.tensors, strict=True))
            return named
        return made.tensors

    return trace(factory, inputs, model=name, by_running=by_running)
