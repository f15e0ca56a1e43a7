"""What a search knows before its first trial, and what its trials add to the cluster's knowledge.

A search works without any knowledge, so nothing here may end it: what is missing or out of reach
is said once, and the search goes on with less.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import ray

from falcon_ray.errors import ClusterError, InputError
from falcon_ray.knowledge.latency.device_knowledge import SERVED
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.knowledge.prior import Host, Prior, expected_metrics
from falcon_ray.knowledge.profile.decompositions import decomposition_rows, model_key
from falcon_ray.knowledge.profile.files import packaged_profile
from falcon_ray.knowledge.profile.manifest import OWN_SOURCE
from falcon_ray.knowledge.profile.schemas import ENVIRONMENTS, MODELS
from falcon_ray.profiling.device_facts import Environment, cpu_environment, cpu_identity
from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.curve_store import CurveStoreClient
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.ray_session import GIB, Cluster
from falcon_ray.runtime.torch_model import ModelReference
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.observation import Observation

logger = logging.getLogger(__name__)

_SERVED_RELATIVE_SD = 0.02
"""Of the median time of a full batch inside a replica, whose spread is not reported."""


@dataclass(frozen=True, slots=True)
class SearchKnowledge:
    """The prior of one search, and the way back into the store.

    Attributes:
        prior: Of every candidate; None where nothing is known.
        decomposition: Of the model; None for an application.
        cpu: Name of the CPU that serves candidates without a GPU, in profiles.
        environment: Of that CPU's machine.
        store: The cluster's, or None where it is out of reach.
    """

    prior: Prior | None
    decomposition: Decomposition | None
    cpu: str
    environment: Environment | None
    store: CurveStoreClient | None

    def learn(self, observation: Observation) -> None:
        """Add what a trial measured of the model to the store."""
        measured = observation.measurement
        if (
            self.store is None
            or self.decomposition is None
            or self.environment is None
            or measured is None
            or measured.service_time_ms is None
        ):
            return
        configuration = observation.configuration
        gpu = configuration.text("gpu_type", "")
        row = {
            "model": model_key(self.decomposition),
            "batch_size": configuration.count("batch_size", 1),
            "dtype": configuration.text("dtype", "float32"),
            "device": Catalogue.packaged().gpu(gpu).gpu_type if gpu else self.cpu,
            "threads": 0 if gpu else configuration.count("cpu_cores", 1),
            "share": configuration.number("gpu_share", 1.0) if gpu else 1.0,
            "mode": SERVED,
            "environment": self.environment.key,
            "latency_us": 1e3 * measured.service_time_ms,
            "relative_sd": _SERVED_RELATIVE_SD,
            "n": max(measured.n_requests // configuration.count("batch_size", 1), 1),
            "peak_memory_bytes": None if measured.memory_gib is None else measured.memory_gib * GIB,
            "source": OWN_SOURCE,
        }
        facts = [{"environment": self.environment.key, "facts": self.environment.text}]
        try:
            self.store.add(
                {
                    "models": pa.Table.from_pylist([row], schema=MODELS),
                    "decompositions": decomposition_rows(self.decomposition),
                    "environments": pa.Table.from_pylist(facts, schema=ENVIRONMENTS),
                }
            )
        except (ClusterError, InputError) as error:
            logger.warning("the curve store did not take a measurement: %s", error)

    def close(self, *, ends_ray: bool) -> None:
        """Have everything written; a Ray of our own takes its store with it."""
        if self.store is None:
            return
        try:
            if ends_ray:
                self.store.close()
            else:
                self.store.flush()
        except (ClusterError, InputError) as error:
            logger.warning("the curve store did not write its last measurements: %s", error)


def search_knowledge(
    header: SearchHeader,
    model: ModelReference | None,
    cluster: Cluster,
    *,
    store: str | None,
    note: Callable[[str], None],
) -> SearchKnowledge:
    """Connect to the cluster's store, and predict every candidate as far as it allows.

    Args:
        header: What the search is about.
        model: The model that is searched for; None for an application.
        cluster: Where its trials will run.
        store: Location of the store; None takes the cluster's own, or the default.
        note: Told in one line what is missing.

    Raises:
        InputError: The store that was named cannot be read or written.
    """
    client: CurveStoreClient | None = None
    try:
        client = CurveStoreClient(store)
    except (ClusterError, InputError) as error:
        if store is not None:
            raise
        note(f"nothing will be learnt for later searches: {error}")
    if model is None:
        return SearchKnowledge(None, None, "", None, client)
    cpu, environment = ray.get(_serving_cpu.remote())
    try:
        decomposition = decompose_model(model, name=header.target)
    except InputError as error:
        note(f"no prior: {error}")
        return SearchKnowledge(None, None, cpu, environment, client)
    profile = packaged_profile()
    try:
        profile = profile if client is None else profile.merged(client.profile())
        prior = expected_metrics(
            header.space,
            decomposition,
            Latencies(profile, Catalogue.packaged()),
            host=Host(device=cpu, ram_bytes=GIB * max(each.ram_gib for each in cluster.nodes)),
            slo=header.objective.slo,
        )
    except (ClusterError, InputError) as error:
        note(f"no prior: {error}")
        return SearchKnowledge(None, decomposition, cpu, environment, client)
    for line in prior.warnings:
        note(f"thin knowledge: {line}")
    return SearchKnowledge(prior, decomposition, cpu, environment, client)


@ray.remote(num_cpus=0)
def _serving_cpu() -> tuple[str, Environment]:
    """The CPU of a node of the cluster, where trials run too."""
    identity = cpu_identity()
    return identity.device, cpu_environment(identity)
