"""How well the family model predicts vision models of architectures that it never saw.

889 published models on 20 set-ups of device, precision, layout, compiler and version. Every family
of architectures is held out in turn, from the constants as from their error bars; then a device
as well. Throughput is judged per sample, as it was published.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import DeviceKind
from falcon_ray.knowledge.latency.family_model import FamilyModel, half_width
from falcon_ray.knowledge.latency.family_pool import pooled
from falcon_ray.space.configuration import FloatArray
from falcon_ray.studies.family_constants import (
    operator_fits,
    ridge_for,
    streaming_constants,
    vision_fit,
)
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.vision_runs import SOURCE, VisionRuns, reference_setups, vision_runs

_LEAST_SETUPS = 8
"""Ranks of a model over fewer set-ups say little."""
_ROOTS = (
    *("resne", "vit", "eit", "former", "darknet", "regne", "mobile", "efficient", "ghostnet"),
    *("convnext", "nasnet", "mix", "hgnet", "hiera", "nfnet", "halo", "coat", "fbnet", "rexnet"),
)
_FEW_MODELS = 20
_N_DRAWS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Predictions of runs that were held out, one row per set-up.

    Attributes:
        runs: The s set-ups.
        errors: Log of measured over predicted, per set-up of shape (n,).
        sds: As predicted, per set-up of shape (n,).
    """

    runs: list[VisionRuns]
    errors: list[FloatArray]
    sds: list[FloatArray]

    @property
    def all_errors(self) -> FloatArray:
        """Of all set-ups, one behind the other."""
        return np.concatenate(self.errors)

    @property
    def all_sds(self) -> FloatArray:
        """Of all set-ups, one behind the other."""
        return np.concatenate(self.sds)


def hold_out(
    runs: list[VisionRuns], *, n_folds: int | None = None, related: bool = False
) -> tuple[HeldOut, HeldOut]:
    """Predictions without a model's family, and without its family and its device.

    Args:
        runs: All set-ups.
        n_folds: Families are dealt into so many folds; None holds out one family at a time.
        related: Whether families whose names share a root are held out together.

    Returns:
        Of every set-up; of the set-ups that `reference_setups` names, from the mean of the other
        devices' constants in the same mode.
    """
    families = sorted({family for each in runs for family in each.families})
    roots = {family: related_root(family) if related else family for family in families}
    groups_of = {root: i for i, root in enumerate(sorted(set(roots.values())))}
    fold_of = {name: groups_of[root] % (n_folds or len(groups_of)) for name, root in roots.items()}
    references = [i for i in reference_setups(runs) if runs[i].device.kind is DeviceKind.GPU]
    known = HeldOut(runs=runs, errors=[], sds=[])
    foreign = HeldOut(runs=[runs[i] for i in references], errors=[], sds=[])
    for held, indices in ((known, range(len(runs))), (foreign, references)):
        for i in indices:
            held.errors.append(np.zeros(len(runs[i].seconds)))
            held.sds.append(np.zeros(len(runs[i].seconds)))
    streaming = streaming_constants(operator_fits("eager"))
    groups = [each.family_numbers for each in runs]
    for fold in range(max(fold_of.values()) + 1):
        out = [np.array([fold_of[name] == fold for name in each.families]) for each in runs]
        fits = [
            vision_fit(each, ridge_for(each, streaming), groups=group, kept=~chosen)
            for each, group, chosen in zip(runs, groups, out, strict=True)
        ]
        for i in range(len(runs)):
            _predict(known, i, fits[i], out[i])
        for place, i in enumerate(references):
            others = [
                fits[other]
                for other in references
                if runs[other].device != runs[i].device and runs[other].mode == runs[i].mode
            ]
            mean = pooled(others, dtype=runs[i].dtype, mode=runs[i].mode, source=SOURCE)
            _predict(foreign, place, mean, out[i])
    for place, sd in enumerate(_sds_of_other_devices(foreign)):
        foreign.sds[place] = np.hypot(foreign.sds[place], sd)
    return known, foreign


def figures(n_folds: int | None = None) -> list[Figure]:
    """The figures of held-out vision models; about a minute."""
    runs = vision_runs()
    known, foreign = hold_out(runs, n_folds=n_folds)
    unrelated, _ = hold_out(runs, n_folds=n_folds, related=True)
    n_groups = len({related_root(family) for each in runs for family in each.families})
    n = len(known.all_errors)
    return [
        Figure(
            name="vision, unseen architectures: median error",
            value=100 * _median_error(known.all_errors),
            unit="%",
            at_most=9.0,
            note=f"{n} runs of {len(known.runs)} set-ups, one architecture family held out",
        ),
        Figure(
            name="vision, related architectures held out together: median error",
            value=100 * _median_error(unrelated.all_errors),
            unit="%",
            note=f"{n_groups} groups of families whose names share a root such as vit or resne",
        ),
        Figure(
            name="vision, worst set-up: median error",
            value=100 * max(_median_error(each) for each in known.errors),
            unit="%",
        ),
        Figure(
            name="vision: Spearman over configurations",
            value=_over_setups(known),
            at_least=0.92,
            note="measured and predicted throughput of one model over set-ups, mean over models",
        ),
        Figure(
            name="vision: Spearman over configurations, GPUs only",
            value=_over_setups(known, kind=DeviceKind.GPU),
        ),
        Figure(
            name="vision: Spearman over models",
            value=_over_models(known),
            note="of one set-up, mean over set-ups",
        ),
        *_coverage("vision, unseen architectures", known, goals=True),
        Figure(
            name="vision, unseen device and architecture: median error",
            value=100 * _median_error(foreign.all_errors),
            unit="%",
            note=f"{len(foreign.all_errors)} runs of {len(foreign.runs)} GPUs and modes, each "
            "from the other GPUs' constants",
        ),
        Figure(
            name="vision, unseen device: sd of a device's log factor",
            value=device_sd(foreign),
        ),
        *_coverage("vision, unseen device and architecture", foreign, goals=False),
        Figure(
            name=f"vision, {_FEW_MODELS} profiled models: median error",
            value=100 * _median_error(few_models(runs)),
            unit="%",
            note=f"drawn {_N_DRAWS} times per GPU and mode, towards the constants of other GPUs, "
            "which saw all models; judged on the architectures that were not drawn",
        ),
    ]


def few_models(runs: list[VisionRuns], *, seed: int = 0) -> FloatArray:
    """Log errors of other architectures where a GPU measured few models only, shape (n,).

    The constants that the fit is drawn to come from GPUs that measured all models.
    """
    rng = np.random.default_rng(seed)
    chosen = [runs[i] for i in reference_setups(runs) if runs[i].device.kind is DeviceKind.GPU]
    streaming = streaming_constants(operator_fits("eager"))
    fits = [
        vision_fit(each, ridge_for(each, streaming), groups=each.family_numbers) for each in chosen
    ]
    errors: list[FloatArray] = []
    for each in chosen:
        others = [fit for fit in fits if fit.device != each.device.name and fit.mode == each.mode]
        prior = pooled(others, dtype=each.dtype, mode=each.mode, source=SOURCE)
        families = np.array(each.families)
        for _ in range(_N_DRAWS):
            kept = np.zeros(len(families), dtype=np.bool_)
            kept[rng.choice(len(families), _FEW_MODELS, replace=False)] = True
            fit = vision_fit(each, prior, groups=each.family_numbers, kept=kept)
            model = FamilyModel(fit, each.device)
            out = ~np.isin(families, families[kept])
            log_seconds, _ = model.predict_totals(each.totals.of(out))
            errors.append(np.log(each.seconds[out]) - log_seconds)
    return np.concatenate(errors)


def device_sd(foreign: HeldOut) -> float:
    """Root mean square over set-ups of the median log error: what facts do not say of a device."""
    return float(np.sqrt(np.mean([np.median(each) ** 2 for each in foreign.errors])))


def _sds_of_other_devices(foreign: HeldOut) -> list[float]:
    """`device_sd` as seen from each set-up's device: its own errors are not known to it."""
    sds: list[float] = []
    for each in foreign.runs:
        medians = [
            np.median(errors)
            for runs, errors in zip(foreign.runs, foreign.errors, strict=True)
            if runs.device != each.device
        ]
        sds.append(float(np.sqrt(np.mean(np.square(medians)))))
    return sds


def related_root(family: str) -> str:
    """The root that a family's name shares with its relatives', else the name."""
    return next((root for root in _ROOTS if root in family), family)


def _predict(held: HeldOut, i: int, constants: Constants, out: NDArray[np.bool_]) -> None:
    runs = held.runs[i]
    log_seconds, sd = FamilyModel(constants, runs.device).predict_totals(runs.totals.of(out))
    held.errors[i][out] = np.log(runs.seconds[out]) - log_seconds
    held.sds[i][out] = sd


def _median_error(errors: FloatArray) -> float:
    """Of predicted over measured."""
    return float(np.median(np.abs(np.expm1(-errors))))


def _coverage(name: str, held: HeldOut, *, goals: bool) -> list[Figure]:
    errors, sds = np.abs(held.all_errors), held.all_sds
    return [
        Figure(
            name=f"{name}: {coverage:.0%} intervals cover",
            value=100 * float(np.mean(errors <= half_width(sds, coverage))),
            unit="%",
            at_least=low if goals else None,
            at_most=high if goals else None,
        )
        for coverage, low, high in ((0.8, 75.0, 85.0), (0.95, 92.0, 98.0))
    ]


def _over_setups(held: HeldOut, *, kind: DeviceKind | None = None) -> float:
    """Mean over models of the rank correlation over set-ups."""
    by_model: dict[str, list[tuple[float, float]]] = {}
    for runs, errors in zip(held.runs, held.errors, strict=True):
        if kind is not None and runs.device.kind is not kind:
            continue
        measured = np.log(runs.batch_sizes / runs.seconds)
        for model, each, error in zip(runs.models, measured, errors, strict=True):
            by_model.setdefault(model, []).append((each, each + error))
    return float(
        np.mean([_rank(pairs) for pairs in by_model.values() if len(pairs) >= _LEAST_SETUPS])
    )


def _over_models(held: HeldOut) -> float:
    correlations: list[float] = []
    for runs, errors in zip(held.runs, held.errors, strict=True):
        measured = np.log(runs.batch_sizes / runs.seconds)
        correlations.append(_rank(list(zip(measured, measured + errors, strict=True))))
    return float(np.mean(correlations))


def _rank(pairs: list[tuple[float, float]]) -> float:
    columns = np.array(pairs)
    return float(stats.spearmanr(columns[:, 0], columns[:, 1]).statistic)
