"""Family constants of devices that nobody measured, from those of others: predictor 3.

Constants are multiples of ideal time, so their mean over devices is a calibrated roofline for any
device of the same kind. The module knows fitted constants; it knows neither measurements nor
facts of devices.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.family_features import FAMILY_OF_TERM, TERMS
from falcon_ray.knowledge.latency.family_model import PREDICTOR
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.space.configuration import FloatArray

_STAND_INS_OF_DTYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"float16": ("bfloat16",), "bfloat16": ("float16",), "fp8_block": ("fp8",)}
)
_STAND_INS: Mapping[Family, tuple[Family, ...]] = MappingProxyType(
    {
        Family.CONV_1X1: (Family.LINEAR,),
        Family.CONV_LARGE: (Family.CONV_3X3,),
        Family.CONV_GROUPED: (Family.CONV_3X3,),
        Family.CONV_DEPTHWISE: (Family.CONV_GROUPED, Family.CONV_3X3),
        Family.ATTENTION: (Family.BMM,),
        Family.POOL: (Family.ELEMENTWISE,),
        Family.MOVE: (Family.ELEMENTWISE,),
        Family.OTHER: (Family.ELEMENTWISE,),
    }
)
"""Families with like work, the nearest first, for those that no table measured."""


def pooled(
    fits: Sequence[Constants],
    *,
    dtype: str,
    mode: str,
    source: str,
    device_sd: float = 0.0,
    device: str = ANY_DEVICE,
) -> Constants:
    """The mean of several devices' constants, and how much devices differ.

    Means are arithmetic: predictions are linear in the constants, and where two terms always occur
    together a fit may give all of their time to either.

    Args:
        fits: Of one device each, all of one kind of device.
        dtype: Of the result; the fits' own may differ where one stands for another.
        mode: Of the result; likewise.
        source: Key of the manifest's sources.
        device_sd: Sd of a device's log factor beyond the spread of these constants, measured by
            leaving devices out.
        device: Name in the result.

    Returns:
        Values of every term that a fit has, with the mean covariance within devices plus that
        between them; the expected square of a deviation of one more device from the mean.

    Raises:
        InputError: There are no fits.
    """
    if not fits:
        raise InputError(
            f"no constants to pool for {dtype} in mode {mode}; profile a device, or import a "
            "profile that has some"
        )
    terms = tuple(each for each in TERMS if any(each in fit.terms for fit in fits))
    values = np.full((len(fits), len(terms)), np.nan)
    within = np.zeros((len(terms), len(terms)))
    n_pairs = np.zeros((len(terms), len(terms)))
    for row, fit in enumerate(fits):
        places = [terms.index(each) for each in fit.terms]
        values[row, places] = fit.values
        within[np.ix_(places, places)] += fit.covariance
        n_pairs[np.ix_(places, places)] += 1
    residual_sd = float(np.sqrt(np.mean([fit.residual_sd**2 for fit in fits])))
    means = np.nanmean(values, axis=0)
    # Dividing by the roots of the diagonal's counts keeps the matrix positive definite.
    n_fits = np.diag(n_pairs)
    covariance = within / np.sqrt(np.outer(n_fits, n_fits)) + _between(values, means, n_fits)
    return Constants(
        predictor=PREDICTOR,
        device=device,
        dtype=dtype,
        mode=mode,
        terms=terms,
        values=means,
        covariance=covariance,
        residual_sd=float(np.hypot(residual_sd, device_sd)),
        n=sum(fit.n for fit in fits),
        source=source,
    )


def transferred(
    constants: Sequence[Constants], device: Device, dtype: str, *, mode: str = "eager"
) -> Constants | None:
    """What other devices' constants say of a device.

    Pooled constants are preferred to those of single devices, which are pooled here without an
    error measured by leaving devices out; then the mode is, then the dtype. Half precisions stand
    for each other.

    Args:
        constants: All that a profile holds for this predictor.
        device: Whose own constants are left out.
        dtype: Wanted.
        mode: Wanted.

    Returns:
        Constants in the dtype that was asked for; None where there is nothing to go by.
    """
    alike = [
        each
        for each in constants
        if (each.threads > 0) == (device.kind is DeviceKind.CPU) and each.device != device.name
    ]
    for stand_in in (dtype, *_STAND_INS_OF_DTYPES.get(dtype, ())):
        of_dtype = [each for each in alike if each.dtype == stand_in]
        of_mode = [each for each in of_dtype if each.mode == mode] or of_dtype
        found = [each for each in of_mode if each.device == ANY_DEVICE]
        if found:
            return replace(found[0], dtype=dtype)
        if of_mode:
            mean = pooled(of_mode, dtype=dtype, mode=of_mode[0].mode, source=of_mode[0].source)
            return replace(mean, threads=of_mode[0].threads)
    return None


def restricted(constants: Constants, terms: Collection[str]) -> Constants:
    """Only the terms that are named, those of them that there are."""
    kept = [i for i, term in enumerate(constants.terms) if term in terms]
    return replace(
        constants,
        terms=tuple(constants.terms[i] for i in kept),
        values=constants.values[kept],
        covariance=constants.covariance[np.ix_(kept, kept)],
    )


def completed(constants: Constants, others: Constants) -> Constants:
    """Constants with the terms that only others have, which keep their values and variance."""
    missing = restricted(others, [each for each in others.terms if each not in constants.terms])
    return replace(
        constants,
        terms=constants.terms + missing.terms,
        values=np.concatenate([constants.values, missing.values]),
        covariance=block_diagonal(constants.covariance, missing.covariance),
    )


def with_stand_ins(constants: Constants) -> Constants:
    """Constants with a value for every family, by that of a family with like work.

    The sd of what stands in, relative to its value, is that between the families that were
    measured.
    """
    known = dict(zip(constants.terms, constants.values.tolist(), strict=True))
    added: dict[str, float] = {}
    for term in TERMS:
        family = FAMILY_OF_TERM.get(term)
        if family is None or term in known:
            continue
        kind = term.rpartition(".")[2]
        for other in _STAND_INS.get(family, ()):
            if (value := known.get(f"{other.value}.{kind}")) is not None:
                added[term] = value
                break
    variances = [
        (value * _spread_between_families(known, term.rpartition(".")[2])) ** 2
        for term, value in added.items()
    ]
    return replace(
        constants,
        terms=constants.terms + tuple(added),
        values=np.concatenate([constants.values, list(added.values())]),
        covariance=block_diagonal(constants.covariance, np.diag(variances)),
    )


def block_diagonal(first: FloatArray, second: FloatArray) -> FloatArray:
    """Covariance of two independent sets of constants."""
    n, m = len(first), len(second)
    joined = np.zeros((n + m, n + m))
    joined[:n, :n] = first
    joined[n:, n:] = second.reshape(m, m)
    return joined


def _spread_between_families(known: Mapping[str, float], kind: str) -> float:
    """Relative sd of the constants of one kind, flops or bytes, between families."""
    values = np.array([each for term, each in known.items() if term.endswith(kind)])
    return float(values.std() / values.mean()) if values.any() else 1.0


def _between(values: FloatArray, means: FloatArray, n_fits: FloatArray) -> FloatArray:
    """Expected square of what one more device's constants deviate by, shape (k, k).

    Args:
        values: Shape (devices, k), NaN where a device lacks a term.
        means: Over devices, shape (k,).
        n_fits: Devices that have each term, shape (k,).
    """
    deviations = np.nan_to_num(values - means)
    # The mean is itself uncertain: n + 1 over n. Rows and columns are scaled alike.
    stretch = np.sqrt((n_fits + 1) / n_fits / np.maximum(n_fits - 1, 1))
    return (deviations * stretch).T @ (deviations * stretch)
