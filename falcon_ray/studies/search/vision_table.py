"""The public throughput of vision models as one matrix: models by set-ups.

A set-up is a device, precision, layout, compiler and version of torch. The module knows what ran
how fast. It predicts nothing.

Notation: m models, s set-ups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from falcon_ray.knowledge.latency.family_features import BOUND_BY_ARITHMETIC
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.space.configuration import FloatArray
from falcon_ray.studies.vision_runs import VisionRuns

IndexArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VisionTable:
    """Throughput of every model on every set-up.

    Attributes:
        setups: The s set-ups, of which each model occurs in one run at most.
        models: Names, length m.
        families: Of architectures, length m.
        places: Index into `models` of each run, per set-up.
        log_rates: Log of images per second, shape (m, s), NaN where a model did not run.
        features: What a model is made of, shape (m, p); see `_features`.
    """

    setups: tuple[VisionRuns, ...]
    models: tuple[str, ...]
    families: tuple[str, ...]
    places: tuple[IndexArray, ...]
    log_rates: FloatArray
    features: FloatArray

    @classmethod
    def of_runs(cls, runs: Sequence[VisionRuns]) -> "VisionTable":
        """Gather runs; repeats of a model on a set-up count once, by their median."""
        setups = tuple(_merged(each) for each in runs)
        family_of = {
            model: family
            for each in setups
            for model, family in zip(each.models, each.families, strict=True)
        }
        models = tuple(sorted(family_of))
        number = {model: i for i, model in enumerate(models)}
        places = tuple(
            np.array([number[model] for model in each.models], dtype=np.intp) for each in setups
        )
        log_rates = np.full((len(models), len(setups)), np.nan)
        for j, (each, rows) in enumerate(zip(setups, places, strict=True)):
            log_rates[rows, j] = np.log(each.batch_sizes / each.seconds)
        return cls(
            setups=setups,
            models=models,
            families=tuple(family_of[model] for model in models),
            places=places,
            log_rates=log_rates,
            features=_features(setups, places, len(models)),
        )


def same_networks(runs: Sequence[VisionRuns]) -> list[VisionRuns]:
    """Runs without those of another network than the model's other runs.

    Under torch 2.9 the publishers merged the branches of models that can be re-parameterised,
    such as RepVGG, and some early runs had larger classifiers. Such a run says nothing of the
    set-up. Networks are told apart by their published number of parameters: the most frequent one
    of a model stays, the largest of equally frequent ones.
    """
    counts: dict[str, dict[float, int]] = {}
    for each in runs:
        for model, params in zip(each.models, each.params_millions.tolist(), strict=True):
            seen = counts.setdefault(model, {})
            seen[params] = seen.get(params, 0) + 1
    usual = {
        model: max(seen, key=lambda params: (seen[params], params))
        for model, seen in counts.items()
    }
    return [
        _chosen(
            each, np.flatnonzero(each.params_millions == [usual[model] for model in each.models])
        )
        for each in runs
    ]


def family_seconds(
    runs: VisionRuns, values: Mapping[str, float], chosen: IndexArray
) -> dict[str, FloatArray]:
    """Seconds per image that each family of operators takes, by fitted constants.

    Args:
        runs: Of one set-up.
        values: Constants by the names of their terms; a term without one takes no time.
        chosen: Positions of the r runs that are asked for.

    Returns:
        By the family's name, shapes (r,); launches of all operators stand as "launch".
    """
    batch = runs.batch_sizes[chosen]
    seconds: dict[str, FloatArray] = {}
    for family, moved in runs.totals.bytes_moved.items():
        flops = runs.totals.flops.get(family, np.zeros_like(moved))
        total = values.get(
            f"{family.value}.bytes", 0.0
        ) * moved / runs.device.bandwidth_bytes_per_s + values.get(
            f"{family.value}.flops", 0.0
        ) * flops / runs.device.peak(runs.dtype)
        seconds[family.value] = total[chosen] / batch
    seconds["launch"] = values.get("launch_s", 0.0) * runs.totals.launches[chosen] / batch
    return seconds


def _merged(runs: VisionRuns) -> VisionRuns:
    """One run per model: the first, with the median of the seconds of those at its batch size."""
    first: dict[str, int] = {}
    for i, model in enumerate(runs.models):
        first.setdefault(model, i)
    if len(first) == len(runs.models):
        return runs
    names = np.array(runs.models)
    seconds = runs.seconds.copy()
    for model, i in first.items():
        same = (names == model) & (runs.batch_sizes == runs.batch_sizes[i])
        seconds[i] = np.median(runs.seconds[same])
    return _chosen(replace(runs, seconds=seconds), np.array(list(first.values()), dtype=np.intp))


def _chosen(runs: VisionRuns, rows: IndexArray) -> VisionRuns:
    """Some of the runs of a set-up, in their order."""
    kept = np.zeros(len(runs.models), dtype=np.bool_)
    kept[rows] = True
    return replace(
        runs,
        models=tuple(model for model, keep in zip(runs.models, kept, strict=True) if keep),
        families=tuple(each for each, keep in zip(runs.families, kept, strict=True) if keep),
        totals=runs.totals.of(kept),
        seconds=runs.seconds[kept],
        batch_sizes=runs.batch_sizes[kept],
        params_millions=runs.params_millions[kept],
    )


def _features(
    setups: Sequence[VisionRuns], places: Sequence[IndexArray], n_models: int
) -> FloatArray:
    """Shares of FLOPs and of bytes per family, and logs of totals per image, shape (m, p).

    Each model's are taken from the first set-up that it ran on. Totals are FLOPs, bytes, FLOPs
    per byte, and calls. Columns that are the same for all models are left out.
    """
    features = np.full((n_models, len(BOUND_BY_ARITHMETIC) + len(Family) + 4), np.nan)
    for each, rows in zip(setups, places, strict=True):
        nothing = np.zeros(len(rows))
        flops = np.column_stack([each.totals.flops.get(f, nothing) for f in BOUND_BY_ARITHMETIC])
        moved = np.column_stack([each.totals.bytes_moved.get(f, nothing) for f in Family])
        all_flops, all_moved = flops.sum(axis=1), moved.sum(axis=1)
        own = np.column_stack(
            [
                flops / all_flops[:, None],
                moved / all_moved[:, None],
                np.log(all_flops / each.batch_sizes),
                np.log(all_moved / each.batch_sizes),
                np.log(all_flops / all_moved),
                np.log(each.totals.launches),
            ]
        )
        new = np.isnan(features[rows, 0])
        features[rows[new]] = own[new]
    return features[:, np.ptp(features, axis=0) > 0]
