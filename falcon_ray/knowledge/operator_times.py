"""How much of a model's time each of its key operators takes, in every cell of a space.

Operators are told apart by name, and by family where one name has several: all `conv2d` of kernel
size 3 together are one. The module ranks predicted times. It knows no candidates.

Notation: c cells, b batch sizes, k operators with their own dimensions, l labels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from falcon_ray.knowledge.cell_times import CellTimes, fill_with_average
from falcon_ray.knowledge.operators.key_operators import ALWAYS_KEY_SHARE, KEY_SHARE
from falcon_ray.knowledge.operators.names import base_name
from falcon_ray.knowledge.operators.operator import Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray

MAX_OPERATORS = 12
"""Of a space, the rest included."""
THE_REST = "the rest"
"""What belongs to no key operator: the small ones, launches, the host."""
_SHORTEST_S = 1e-9


def operator_seconds(found: CellTimes) -> Mapping[str, FloatArray]:
    """Seconds of a batch that each key operator takes, by its label, shapes (c, b), positive.

    Key is what, in any cell and at any batch size, belongs to those that cover 95 % of the
    operators' time, or takes more than 1 % of the model's; the most important ones where that
    would be too many. Together they take the predicted time of the batch.
    """
    cells = list(found.predictions)
    labels, member = _labels(found.predictions[cells[0]].calls)
    taken = np.stack(
        [
            np.exp(each.log_factor)
            * (np.concatenate(each.estimate.operator_seconds, axis=1) @ member)
            for each in found.predictions.values()
        ]
    )
    total = np.exp(found.log_seconds[cells])[:, :, None]
    # Operators measured one by one may add up to more than the model takes.
    taken *= np.minimum(total / taken.sum(axis=2, keepdims=True), 1.0)
    chosen = _key(taken, total)
    rest = total[:, :, 0] - taken[:, :, chosen].sum(axis=2)
    tables: dict[str, FloatArray] = {labels[int(i)]: taken[:, :, int(i)] for i in chosen}
    tables[THE_REST] = rest
    return {
        label: _of_all_cells(found, cells, np.maximum(each, _SHORTEST_S))
        for label, each in tables.items()
    }


def _of_all_cells(found: CellTimes, cells: Sequence[int], seconds: FloatArray) -> FloatArray:
    """Spread known cells' seconds, shape (known, b), over all; averages on devices nobody knows."""
    log_seconds = np.zeros_like(found.log_seconds)
    log_seconds[list(cells)] = np.log(seconds)
    fill_with_average(log_seconds, known=cells, unknown=found.strangers)
    return np.exp(log_seconds)


def _labels(calls: Sequence[FamilyCalls]) -> tuple[list[str], FloatArray]:
    """Labels for people, and which operator has which, shape (k, l); views have none."""
    families: dict[str, set[Family]] = {}
    pairs = [(base_name(name), each.family) for each in calls for name in each.names]
    for name, family in pairs:
        if family is not Family.VIEW:
            families.setdefault(name, set()).add(family)
    place: dict[str, int] = {}
    member = np.zeros((len(pairs), len(set(pairs))))
    for row, (name, family) in enumerate(pairs):
        if family is Family.VIEW:
            continue
        kind = family.value.removeprefix("conv_").replace("_", " ")
        label = name if len(families[name]) == 1 else f"{name} ({kind})"
        member[row, place.setdefault(label, len(place))] = 1.0
    return list(place), member[:, : len(place)]


def _key(taken: FloatArray, whole: FloatArray) -> NDArray[np.intp]:
    """Positions of the key labels, by falling share at their most important place.

    Args:
        taken: Seconds, shape (cells, b, l).
        whole: Of the model, shape (cells, b, 1).
    """
    order = np.argsort(-taken, axis=2, kind="stable")
    by_rank = np.take_along_axis(taken, order, axis=2)
    before = np.cumsum(by_rank, axis=2) - by_rank
    in_cover = before < KEY_SHARE * by_rank.sum(axis=2, keepdims=True)
    large = by_rank > ALWAYS_KEY_SHARE * whole
    is_key = np.zeros(taken.shape, dtype=np.bool_)
    np.put_along_axis(is_key, order, (in_cover | large) & (by_rank > 0), axis=2)
    share = (taken / whole).max(axis=(0, 1))
    key = np.flatnonzero(is_key.any(axis=(0, 1)))
    return key[np.argsort(-share[key], kind="stable")][: MAX_OPERATORS - 1]
