"""Runs the studies of one subject and lays their figures beside the goals.

It knows the names of studies. It does not know what they measure.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from types import MappingProxyType

from falcon_ray.errors import InputError
from falcon_ray.studies.figure import Figure

STUDIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "knowledge": (
            "static_trace",
            "operators",
            "transformers",
            "vision",
            "llm",
            "cpu_models",
            "curve_shapes",
            "prior_speed",
            "store_speed",
        ),
        "search": (
            "llm_main",
            "llm_large",
            "vision",
            "cpu",
            "paper",
            "speed",
        ),
        "measurement": (
            "virtual",
            "equal",
            "known_service",
            "capacity",
            "repeat",
            "ceiling",
            "faults",
        ),
        "distributed": (
            "machines",
            "heterogeneous",
            "crowded",
            "autoscaling",
            "faults",
            "searches",
        ),
    }
)
"""Modules of `falcon_ray.studies.SUBJECT`, each with a function `figures`, which may take the
options of a subject that has any."""

ON_REQUEST: Mapping[str, tuple[str, ...]] = MappingProxyType({"search": ("tables", "quick")})
"""Studies that run only where they are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """What one study said.

    Attributes:
        name: Of the study.
        figures: In its order; empty where it could not run.
        problem: Why it could not run, or empty.
        wall_s: How long it took.
    """

    name: str
    figures: tuple[Figure, ...]
    problem: str
    wall_s: float


def run_studies(
    subject: str,
    names: Sequence[str],
    *,
    options: object = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[StudyResult]:
    """Run the studies of a subject one after the other.

    Args:
        subject: A key of `STUDIES`.
        names: Which of them, `ON_REQUEST` included; all of `STUDIES` when empty.
        options: What `figures` of its studies takes; None where it takes nothing.
        clock: Monotonic seconds.

    Raises:
        InputError: There is no such subject or study.
    """
    if subject not in STUDIES:
        raise InputError(f"no benchmark {subject!r}; there are {', '.join(STUDIES)}")
    known = STUDIES[subject] + ON_REQUEST.get(subject, ())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"no study {unknown[0]!r}; {subject} has {', '.join(known)}")
    for name in names or STUDIES[subject]:
        start_s = clock()
        figures, problem = _figures(f"falcon_ray.studies.{subject}.{name}", options)
        yield StudyResult(name=name, figures=figures, problem=problem, wall_s=clock() - start_s)


def _figures(module: str, options: object) -> tuple[tuple[Figure, ...], str]:
    study: Callable[..., Iterable[Figure]] = import_module(module).figures
    try:
        takes_options = options is not None and bool(signature(study).parameters)
        return tuple(study(options) if takes_options else study()), ""
    except InputError as error:
        return (), str(error)
