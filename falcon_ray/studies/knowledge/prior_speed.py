"""How fast a prior of a whole space is, and how much memory it takes."""

import resource
import statistics
import time

import numpy as np

from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.knowledge.prior import Host, expected_metrics
from falcon_ray.knowledge.profile.files import packaged_profile
from falcon_ray.profiling.zoo.registry import REFERENCE_MODELS
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import Reference
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.objective import Slo
from falcon_ray.studies.figure import Figure

_REPEATS = 7
_SMALL = {
    "gpu_type": ("T4", "A10G", "L4", "L40S", "A100-40G"),
    "gpu_share": (0.25, 0.5, 1.0),
    "batch_size": (1, 2, 4, 8, 16, 32, 64, 128),
    "dtype": ("float32", "float16"),
    "batch_wait_ms": (0, 5, 20),
    "replicas": (1, 2),
}  # 5 x 3 x 8 x 2 x 3 x 2 = 1,440
_LARGE = {
    "gpu_type": ("T4", "A10G", "L4", "L40S", "A100-40G", "A100-80G", "H100", "H200", "V100-16G"),
    "gpu_share": (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 1.0),
    "batch_size": tuple(range(1, 129, 4)),
    "dtype": ("float32", "float16"),
    "batch_wait_ms": (0, 1, 2, 5, 10, 20, 50),
    "replicas": tuple(range(1, 26)),
}  # 9 x 10 x 32 x 2 x 7 x 25 = 1,008,000


def figures() -> list[Figure]:
    """Seconds and memory of the prior under an SLO, where all four metrics are expected."""
    reference = ModelReference(Reference(REFERENCE_MODELS["mobilenet_v3"].factory))
    decomposition = decompose_model(reference, name="mobilenet_v3")
    small, large = ConfigurationSpace.of(_SMALL), ConfigurationSpace.of(_LARGE)
    latencies = _latencies()
    _seconds(small, decomposition, latencies)
    small_s = [_seconds(small, decomposition, latencies) for _ in range(_REPEATS)]
    before_gib = _peak_gib()
    large_s = _seconds(large, decomposition)
    return [
        Figure(
            name=f"prior of {len(small):,} candidates",
            value=1e3 * statistics.median(small_s),
            unit="ms",
            at_most=50,
            note=f"median of {_REPEATS}, the profile read and its constants sorted before",
        ),
        Figure(
            name=f"prior of {len(large):,} candidates, reading the profile included",
            value=large_s,
            unit="s",
            at_most=5,
        ),
        Figure(
            name="peak memory of the process after that",
            value=_peak_gib(),
            unit="GiB",
            at_most=2,
            note=f"{before_gib:.2f} GiB before, torch included",
        ),
    ]


def _seconds(
    space: ConfigurationSpace, decomposition: Decomposition, latencies: Latencies | None = None
) -> float:
    """With `latencies` left out, reading the profile is part of what is timed."""
    n = len(space)  # enumerated before the clock starts: the prior does not make the space
    start_s = time.perf_counter()
    prior = expected_metrics(
        space,
        decomposition,
        latencies or _latencies(),
        host=Host(device="", ram_bytes=0.0),
        slo=Slo(latency_budget_ms=100),
    )
    elapsed_s = time.perf_counter() - start_s
    assert np.isfinite(prior.metrics["capacity_rps"].mean).sum() == n
    return elapsed_s


def _latencies() -> Latencies:
    return Latencies(packaged_profile(), Catalogue.packaged())


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
