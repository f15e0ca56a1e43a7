"""The prior that a search began with, kept beside its journal.

What is known grows while a search runs, by its own trials too; a search that goes on has to start
from what it started from. The file is an archive of arrays without pickles.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray

PRIOR_NAME = "prior.npz"
_FITS = "fits"


@dataclass(frozen=True, slots=True)
class KeptPrior:
    """Expected logs of metrics and the probability that memory suffices, shapes (n,)."""

    means: Mapping[str, FloatArray]
    fits: FloatArray


def write_prior(directory: Path, prior: KeptPrior) -> None:
    """Write the prior into a run directory, all of it or nothing.

    Raises:
        InputError: The directory cannot be written.
    """
    unfinished = directory / f".{PRIOR_NAME}"
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **{_FITS: prior.fits}, **dict(prior.means))  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(directory / PRIOR_NAME)
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error.strerror}") from error


def read_prior(directory: Path) -> KeptPrior | None:
    """The prior of a search, or None where it began without one.

    Raises:
        InputError: The file is damaged.
    """
    path = directory / PRIOR_NAME
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found: dict[str, FloatArray] = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}; start a new search") from error
    if _FITS not in found:
        raise InputError(f"{path} is damaged: it holds no {_FITS}; start a new search")
    fits = found.pop(_FITS)
    return KeptPrior(found, fits)
