"""Static decomposition against real runs: the same operators, as fast, for every batch size?

Real runs are those of this machine's CPU under torch's profiler. How good a *prediction* from the
operators is stands in other studies.
"""

import pkgutil
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from falcon_ray.knowledge.operators.operator import Operator
from falcon_ray.profiling.profiled_run import ProfiledRun, profiled_run
from falcon_ray.profiling.trace import Inputs, Trace, TracedModel, trace
from falcon_ray.profiling.zoo.registry import REFERENCE_MODELS
from falcon_ray.studies.figure import Figure

_BATCH_SIZE = 2
_OTHER_BATCH_SIZES = (7, 16)


def figures(names: Sequence[str] = tuple(REFERENCE_MODELS), *, repeats: int = 5) -> list[Figure]:
    """Compare static traces of reference models with real runs.

    Args:
        names: Of reference models.
        repeats: Traces behind each median time.
    """
    found: list[Figure] = []
    for name in names:
        reference = REFERENCE_MODELS[name]
        build: Callable[[], Any] = pkgutil.resolve_name(reference.factory)
        inputs: Callable[[int], Inputs] = pkgutil.resolve_name(reference.inputs)
        static, seconds = _timed_trace(build, inputs, name, repeats)
        real = profiled_run(build, inputs(_BATCH_SIZE))
        found += [
            _match(name, static, real),
            Figure(
                name=f"seconds per trace, {name}",
                value=seconds,
                unit="s",
                at_most=0.5,
                note=f"building on meta and tracing one batch size, median of {repeats}",
            ),
            *_extrapolation(name, build, inputs),
            Figure(
                name=f"static over real peak of activations, {name}",
                value=static.activation_bytes / real.peak_bytes,
                note=f"batch {_BATCH_SIZE}: {static.activation_bytes / 2**20:.1f} MiB static; real "
                "from the CPU allocator's events in torch.profiler",
            ),
        ]
    return sorted(found, key=lambda figure: figure.name.partition(", ")[0])


def _timed_trace(
    build: Callable[[], Any], inputs: Callable[[int], Inputs], name: str, repeats: int
) -> tuple[Trace, float]:
    seconds: list[float] = []
    example = inputs(_BATCH_SIZE)
    TracedModel(build, model=name).trace(example)  # torch imports much at the first
    for _ in range(repeats - 1):
        start = perf_counter()
        TracedModel(build, model=name).trace(example)
        seconds.append(perf_counter() - start)
    start = perf_counter()
    traced = TracedModel(build, model=name).trace(example)
    return traced, median([*seconds, perf_counter() - start])


def _match(name: str, static: Trace, real: ProfiledRun) -> Figure:
    found = Counter((each.name, each.shapes) for each in static.operators)
    matched = sum(real.seconds[key] for key, n in real.calls.items() if found[key] == n)
    keys = found.keys() | real.calls.keys()
    differing = sum(found[key] != real.calls[key] for key in keys)
    return Figure(
        name=f"time of operators found statically, {name}",
        value=matched / sum(real.seconds.values()),
        at_least=0.999,
        note=f"share of the time of {real.calls.total()} top-level aten:: events at batch "
        f"{_BATCH_SIZE} whose name, shapes and count agree; {differing} of {len(keys)} keys differ",
    )


def _extrapolation(
    name: str, build: Callable[[], Any], inputs: Callable[[int], Inputs]
) -> list[Figure]:
    decomposition = trace(build, inputs, model=name)
    model = TracedModel(build, model=name)
    differing, worst = 0, 0.0
    for batch_size in _OTHER_BATCH_SIZES:
        direct = model.trace(inputs(batch_size))
        wanted, got = _counts(direct.operators), _counts(decomposition.at(batch_size))
        differing += sum(wanted[key] != got[key] for key in wanted | got)
        bytes_at = float(decomposition.activation_bytes_at(np.array([float(batch_size)]))[0])
        worst = max(worst, bytes_at / direct.activation_bytes - 1, key=abs)
    how = f"at batch {' and '.join(map(str, _OTHER_BATCH_SIZES))}, against direct traces"
    return [
        Figure(
            name=f"operators extrapolated wrongly, {name}",
            value=differing,
            at_most=0,
            note=f"name, dims, shapes, FLOPs, bytes or count {how}",
        ),
        Figure(
            name=f"error of the extrapolated peak of activations, {name}",
            value=100 * worst,
            unit="%",
            note=how,
        ),
    ]


def _counts(operators: Sequence[Operator]) -> Counter[tuple[object, ...]]:
    counts: Counter[tuple[object, ...]] = Counter()
    for each in operators:
        key = (each.name, each.dims, each.shapes, each.flops, each.bytes_read, each.bytes_written)
        counts[key] += each.count
    return counts
