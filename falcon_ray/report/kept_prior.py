"""The prior that a search began with, kept beside its journal.

What is known grows while a search runs, by its own trials too; a search that goes on has to start
from what it started from. The file is an archive of arrays without pickles: what an array is
stands in its name.

    format                          number of this layout
    memory                          log memory shares, where they are known
    operator|NAME                   seconds of a key operator
    weight|EXPERT                   weight of an expert; experts keep their order
    mean|EXPERT|METRIC              what it expects, likewise offset_sd and residual_sd
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.space.configuration import FloatArray

PRIOR_NAME = "prior.npz"
FORMAT = 2
_SEPARATOR = "|"
_FORMAT, _MEMORY, _OPERATOR, _WEIGHT = "format", "memory", "operator", "weight"
_PARTS = tuple(each.name for each in fields(ExpectedMetric))


def write_prior(directory: Path, prior: ExpertMixture) -> None:
    """Write the prior into a run directory, all of it or nothing.

    Raises:
        InputError: The directory cannot be written, or a name cannot stand in the file.
    """
    unfinished = directory / f".{PRIOR_NAME}"
    arrays = _arrays(prior)
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(directory / PRIOR_NAME)
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error.strerror}") from error


def read_prior(directory: Path) -> ExpertMixture | None:
    """The prior of a search, or None where it began without one.

    Raises:
        InputError: The file is damaged, or of a version that kept something else.
    """
    path = directory / PRIOR_NAME
    if not path.exists():
        return None
    try:
        # NumPy leaves a file open that it opened itself and cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays: dict[str, FloatArray] = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is damaged: {error}; start a new search") from error
    if _FORMAT not in arrays or int(arrays[_FORMAT]) != FORMAT:
        raise InputError(
            f"{path} was written by another version of falcon_ray, which expected something else "
            "of the candidates; go on with that version, or start a new search"
        )
    try:
        return _mixture(arrays)
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}; start a new search") from error


def _arrays(prior: ExpertMixture) -> dict[str, FloatArray]:
    arrays: dict[str, FloatArray] = {_FORMAT: np.asarray(FORMAT, dtype=np.float64)}
    if prior.log_memory_share is not None:
        arrays[_MEMORY] = prior.log_memory_share
    for name, seconds in prior.operator_seconds.items():
        arrays[_key(_OPERATOR, name)] = seconds
    for expert in prior.experts:
        arrays[_key(_WEIGHT, expert.name)] = np.asarray(expert.weight)
        for metric, expected in expert.metrics.items():
            for part in _PARTS:
                arrays[_key(part, expert.name, metric)] = np.asarray(getattr(expected, part))
    return arrays


def _mixture(arrays: Mapping[str, FloatArray]) -> ExpertMixture:
    """Read what `_arrays` made.

    Raises:
        KeyError: A part of something is missing.
        InputError: The parts do not fit together.
    """
    metrics: dict[str, dict[str, ExpectedMetric]] = {}
    operators: dict[str, FloatArray] = {}
    for key, array in arrays.items():
        kind, *names = key.split(_SEPARATOR)
        if kind == _OPERATOR:
            operators[names[0]] = array
        elif kind == _PARTS[0]:
            expert, metric = names
            metrics.setdefault(expert, {})[metric] = _expected(arrays, expert, metric)
    return ExpertMixture(
        experts=tuple(
            Expert(name=name, weight=float(arrays[_key(_WEIGHT, name)]), metrics=each)
            for name, each in metrics.items()
        ),
        log_memory_share=arrays.get(_MEMORY),
        operator_seconds=operators,
    )


def _expected(arrays: Mapping[str, FloatArray], expert: str, metric: str) -> ExpectedMetric:
    mean, offset_sd, residual_sd = (arrays[_key(part, expert, metric)] for part in _PARTS)
    return ExpectedMetric(
        mean=mean,
        offset_sd=float(offset_sd),
        residual_sd=residual_sd if residual_sd.ndim else float(residual_sd),
    )


def _key(kind: str, *names: str) -> str:
    for name in names:
        if _SEPARATOR in name:
            raise InputError(f"{name!r} cannot be kept: choose a name without {_SEPARATOR}")
    return _SEPARATOR.join((kind, *names))
