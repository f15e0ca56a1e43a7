"""Which of a model's operators matter: the few that nearly all of its time is spent in.

It ranks predicted times. It does not know where a prediction comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from falcon_ray.knowledge.operators.operator import Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray

KEY_SHARE = 0.95
"""Key operators cover this share of the predicted time of all operators..."""
ALWAYS_KEY_SHARE = 0.01
"""...and everything that alone takes more than this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOperator:
    """One operator with one signature, and its part of the model's time.

    Attributes:
        name: ATen's name.
        family: Decides what `dims` mean.
        dims: Canonical dimensions at the batch size that was asked for.
        calls: In one forward pass.
        seconds: All its calls together, predicted.
        share: Of the whole model's predicted time.
        positions: (group, column) among the `FamilyCalls` of all operators that are equal but
            for how their dimensions are laid out.
    """

    name: str
    family: Family
    dims: tuple[int, ...]
    calls: int
    seconds: float
    share: float
    positions: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOperators:
    """A model's time at one batch size, as its key operators and what is left of it.

    Attributes:
        operators: By falling share.
        n_others: How many further signatures there are.
        others_share: What those take together.
        host_share: What belongs to no operator: launches, the host, what surrounds the calls.
    """

    operators: tuple[KeyOperator, ...]
    n_others: int
    others_share: float
    host_share: float


def key_operators(
    calls: Sequence[FamilyCalls],
    seconds: Sequence[FloatArray],
    *,
    batch_index: int,
    total_seconds: float,
) -> KeyOperators:
    """The operators that cover 95 % of the operators' time, and all above 1 %.

    Views, which move nothing, are never among them.

    Args:
        calls: All operators of the model by family, at b batch sizes.
        seconds: Predicted time of all calls of each operator together, one array of shape
            (b, k) per element of `calls`.
        batch_index: At which of the batch sizes.
        total_seconds: The model's whole predicted time there; what exceeds the operators'
            sum is the host's.

    Raises:
        ValueError: The model has no operator that takes time.
    """
    merged: dict[tuple[str, tuple[int, ...]], list[tuple[int, int]]] = {}
    for group, each in enumerate(calls):
        if each.family is Family.VIEW:
            continue
        for column, name in enumerate(each.names):
            dims = tuple(round(float(size)) for size in each.dims[batch_index, column])
            merged.setdefault((name, dims), []).append((group, column))
    found = [
        KeyOperator(
            name=name,
            family=calls[positions[0][0]].family,
            dims=dims,
            calls=round(sum(float(calls[group].counts[column]) for group, column in positions)),
            seconds=sum(float(seconds[group][batch_index, column]) for group, column in positions),
            share=0.0,
            positions=tuple(positions),
        )
        for (name, dims), positions in merged.items()
    ]
    found.sort(key=lambda each: -each.seconds)
    times = np.array([each.seconds for each in found])
    in_operators = float(times.sum())
    if not in_operators > 0:
        raise ValueError("no operator takes any time, so none is key; trace a model that computes")
    whole = max(total_seconds, in_operators)
    before = np.concatenate([[0.0], np.cumsum(times)[:-1]])
    is_key = (before < KEY_SHARE * in_operators) | (times > ALWAYS_KEY_SHARE * whole)
    return KeyOperators(
        operators=tuple(
            replace(each, share=each.seconds / whole)
            for each, key in zip(found, is_key, strict=True)
            if key
        ),
        n_others=int((~is_key).sum()),
        others_share=float(times[~is_key].sum()) / whole,
        host_share=(whole - in_operators) / whole,
    )
