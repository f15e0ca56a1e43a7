"""What is expected of a vision model's throughput, from architectures other than its own.

Families of architectures are dealt into folds. Nothing that is fitted for a model has seen its
fold: neither the constants per family of operators, nor the correction that is learned from what
they leave, nor how far each expert is believed to be off. Tuned by hand, on the same table with
folds left out: `_DISTANCE`, `_LINEAR`, `_NOISE`, `_REACH` and `_BASE_REACH`.

Notation: m models, s set-ups; logs are natural.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import DeviceKind
from falcon_ray.knowledge.latency.family_model import FamilyModel
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.space.configuration import FloatArray
from falcon_ray.studies.family_constants import ridge_for, vision_fit
from falcon_ray.studies.search.vision_table import IndexArray, VisionTable, family_seconds

_FUSED = (
    *(Family.ACTIVATION, Family.ELEMENTWISE, Family.NORM),
    *(Family.SOFTMAX, Family.MOVE, Family.VIEW),
)
"""What a compiler merges into its neighbours, so that the roofline counts no traffic of it."""
_COMMON_SHARE = 0.9
"""Set-ups that so many of the models ran on say how fast a model is as a whole."""
_DISTANCE = 0.2  # sd of the part of a contrast that only like models share
_LINEAR = 0.05  # sd of its part that is linear in the features
_LEVEL = 0.05  # sd of its part that all models share, beside the median
_NOISE = 0.07
_REACH = 1.0  # how far like models are apart, in sd of the features
_BASE_REACH = 0.2  # and in log contrasts of the prediction that is corrected
_LARGEST = 1.0
"""Contrasts farther than this from the median count as this far."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldKnowledge:
    """Expectations of all models by experts that have not seen one fold of families.

    Those of a model outside the fold come from experts that have not seen its own fold either, so
    that their errors tell how far the experts are off on new families.

    Attributes:
        held_out: Whether a model belongs to the fold, shape (m,).
        log_rates: Of each expert that learns something or computes it, shape (m, s) each, NaN
            where the model did not run.
        seconds: Per image and family of operators, by name, of the models of the fold, shape
            (m, s) each, NaN elsewhere.
    """

    held_out: NDArray[np.bool_]
    log_rates: dict[str, FloatArray]
    seconds: dict[str, FloatArray]


def folds_of(families: Sequence[str], *, n_folds: int) -> NDArray[np.intp]:
    """Fold of each model, shape (m,): families are dealt in the order of their names.

    Raises:
        InputError: There are fewer families than folds, or fewer folds than three.
    """
    names = sorted(set(families))
    if not 3 <= n_folds <= len(names):
        raise InputError(
            f"n_folds must lie between 3 and the {len(names)} families of the table, got {n_folds}"
        )
    fold = {name: i % n_folds for i, name in enumerate(names)}
    return np.array([fold[name] for name in families], dtype=np.intp)


def fold_knowledge(
    table: VisionTable, folds: NDArray[np.intp], streaming: Constants
) -> list[FoldKnowledge]:
    """What is known without each of the folds; about 12 s for ten of them.

    Args:
        table: All models.
        folds: From `folds_of`, shape (m,).
        streaming: Of single operators, which eager fits are drawn to.
    """
    n = int(folds.max()) + 1
    composed = [np.full(table.log_rates.shape, np.nan) for _ in range(n)]
    seconds: list[dict[str, FloatArray]] = [{} for _ in range(n)]
    # A fit without two folds serves both: each is held out where the other is predicted.
    for first, second in combinations_with_replacement(range(n), 2):
        out = np.isin(folds, [first, second])
        fits = [
            vision_fit(
                each, ridge_for(each, streaming), groups=each.family_numbers, kept=~out[rows]
            )
            for each, rows in zip(table.setups, table.places, strict=True)
        ]
        _predict(table, fits, folds == second, composed[first])
        if first == second:
            seconds[first] = _operator_seconds(table, fits, folds == first)
        else:
            _predict(table, fits, folds == first, composed[second])
    ideal = roofline(table)
    return [
        FoldKnowledge(
            held_out=folds == fold,
            log_rates={
                "roofline": ideal,
                "families": composed[fold],
                "corrected": corrected(table, composed[fold], folds, held_out=fold),
            },
            seconds=seconds[fold],
        )
        for fold in range(n)
    ]


def roofline(table: VisionTable) -> FloatArray:
    """Log images per second by facts of devices alone, shape (m, s), NaN where none ran.

    Each family takes the longer of its FLOPs at peak and its bytes at full bandwidth; compiled
    code moves no bytes for what it fuses.
    """
    log_rates = np.full(table.log_rates.shape, np.nan)
    for j, (each, rows) in enumerate(zip(table.setups, table.places, strict=True)):
        peak, bandwidth = each.device.peak(each.dtype), each.device.bandwidth_bytes_per_s
        seconds = np.zeros(len(rows))
        for family, moved in each.totals.bytes_moved.items():
            if each.mode == "compiled" and family in _FUSED:
                continue
            flops = each.totals.flops.get(family, np.zeros(len(rows)))
            seconds += np.maximum(flops / peak, moved / bandwidth)
        log_rates[rows, j] = np.log(each.batch_sizes / seconds)
    return log_rates


def corrected(
    table: VisionTable, base: FloatArray, folds: NDArray[np.intp], *, held_out: int
) -> FloatArray:
    """Log rates whose contrasts between set-ups are learned from models that are alike.

    A model's level stays that of the base. The contrast of each set-up with the level is a Gaussian
    process over what the model is made of and over the contrasts of the base.

    Args:
        table: Measured, and what models are made of.
        base: Expected log rates, shape (m, s), of experts that know neither a model's own fold
            nor the one that is held out.
        folds: Of the models, shape (m,).
        held_out: Fold whose measurements are not looked at.

    Returns:
        Shape (m, s); each known model is predicted from the folds that are neither its own nor
        held out.
    """
    known = folds != held_out
    common = _common(table)
    medians, levels = _two_way(np.where(known[:, None], table.log_rates, np.nan), common)
    contrasts = np.clip(table.log_rates - medians - levels[:, None], -_LARGEST, _LARGEST)
    base_medians, base_levels = _two_way(base, common)
    covariance = _covariance(
        _standardised(table.features, known),
        np.nan_to_num(base - base_medians - base_levels[:, None]),
    )
    shift = float(np.nanmedian((levels - base_levels)[known]))
    found = medians + (base_levels + shift)[:, None] + np.zeros_like(base)
    by_mask: dict[bytes, list[int]] = {}
    for j in range(base.shape[1]):
        by_mask.setdefault((known & np.isfinite(contrasts[:, j])).tobytes(), []).append(j)
    for mask, columns in by_mask.items():
        used = np.flatnonzero(np.frombuffer(mask, dtype=np.bool_))
        found[:, columns] += _left_out(covariance, contrasts[used][:, columns], used, folds)
    return np.where(np.isfinite(base), found, np.nan)


def _left_out(
    covariance: FloatArray, targets: FloatArray, used: IndexArray, folds: NDArray[np.intp]
) -> FloatArray:
    """Posterior means of all models, those of used ones without their own fold.

    Rasmussen and Williams (2006), eq. 5.12, for blocks instead of single points.

    Args:
        covariance: Prior, shape (m, m).
        targets: Of the u models that are used, shape (u, c).
        used: Their positions.
        folds: Shape (m,).

    Returns:
        Shape (m, c).
    """
    precision = np.linalg.inv(covariance[np.ix_(used, used)] + _NOISE**2 * np.eye(len(used)))
    weighted = precision @ targets
    means = covariance[:, used] @ weighted
    for fold in np.unique(folds[used]):
        own = np.flatnonzero(folds[used] == fold)
        own_precision = precision[np.ix_(own, own)]
        means[used[own]] = targets[own] - np.linalg.solve(own_precision, weighted[own])
    return means


def _covariance(features: FloatArray, base: FloatArray) -> FloatArray:
    """Matern 5/2 on features and contrasts of the base, and a part linear in features, (m, m)."""
    n_features, n_setups = features.shape[1], base.shape[1]
    scaled = np.hstack(
        [
            features / (_REACH * np.sqrt(n_features)),
            base / (_BASE_REACH * np.sqrt(n_setups)),
        ]
    )
    squares = (scaled**2).sum(axis=1)
    squared = np.maximum(squares[:, None] + squares - 2 * scaled @ scaled.T, 0.0)
    root = np.sqrt(5 * squared)
    near = (1 + root + 5 * squared / 3) * np.exp(-root)
    linear = features @ features.T / n_features
    return _DISTANCE**2 * near + _LINEAR**2 * linear + _LEVEL**2


def _standardised(features: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    sd = features[known].std(axis=0)
    varied = features[:, sd > 0]
    return (varied - varied[known].mean(axis=0)) / sd[sd > 0]


def _common(table: VisionTable) -> IndexArray:
    """GPU set-ups that nearly all models ran on; all set-ups where there is none."""
    shares = np.isfinite(table.log_rates).mean(axis=0)
    is_gpu = np.array([each.device.kind is DeviceKind.GPU for each in table.setups])
    found = np.flatnonzero(is_gpu & (shares >= _COMMON_SHARE))
    return found if found.size else np.arange(len(table.setups))


def _two_way(logs: FloatArray, common: IndexArray) -> tuple[FloatArray, FloatArray]:
    """Medians of set-ups, shape (s,), and levels of models over the common ones, shape (m,).

    Set-ups that a model lacks do not shift its level. Levels of models without any log are NaN.
    """
    rows = np.flatnonzero(np.isfinite(logs[:, common]).any(axis=1))
    own = logs[rows]
    medians = np.nanmedian(own, axis=0)
    levels = np.zeros(len(rows))
    for _ in range(3):
        levels = np.nanmean((own - medians)[:, common], axis=1)
        medians = np.nanmedian(own - levels[:, None], axis=0)
    found = np.full(len(logs), np.nan)
    found[rows] = levels
    return medians, found


def _predict(
    table: VisionTable, fits: Sequence[Constants], asked: NDArray[np.bool_], found: FloatArray
) -> None:
    """Write the log rates of some models into `found`, shape (m, s)."""
    for j, (each, rows, fit) in enumerate(zip(table.setups, table.places, fits, strict=True)):
        chosen = asked[rows]
        log_seconds, _ = FamilyModel(fit, each.device).predict_totals(each.totals.of(chosen))
        found[rows[chosen], j] = np.log(each.batch_sizes[chosen]) - log_seconds


def _operator_seconds(
    table: VisionTable, fits: Sequence[Constants], asked: NDArray[np.bool_]
) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    for j, (each, rows, fit) in enumerate(zip(table.setups, table.places, fits, strict=True)):
        chosen = np.flatnonzero(asked[rows])
        values = dict(zip(fit.terms, fit.values.tolist(), strict=True))
        for name, seconds in family_seconds(each, values, chosen).items():
            whole = found.setdefault(name, np.full(table.log_rates.shape, np.nan))
            whole[rows[chosen], j] = seconds
    return found
