"""What a search knows before its first trial, and what its trials add to the cluster's knowledge.

A search works without any knowledge, so nothing here may end it: what is missing or out of reach
is said once, and the search goes on with less.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import ray
from ray.exceptions import RayError

from falcon_ray.errors import ClusterError, InputError
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.latency.profile_view import SERVED
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.knowledge.prior import Host, expert_mixture
from falcon_ray.knowledge.profile.decompositions import decomposition_rows, model_key
from falcon_ray.knowledge.profile.files import packaged_profile
from falcon_ray.knowledge.profile.manifest import OWN_SOURCE
from falcon_ray.knowledge.profile.schemas import ENVIRONMENTS, MODELS
from falcon_ray.profiling.device_facts import Environment, cpu_environment, cpu_identity
from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.curve_store import CurveStoreClient
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.emulated.marks import is_emulated
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.ray_session import GIB, Cluster
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation
from falcon_ray.space.workload import Workload

logger = logging.getLogger(__name__)

STORE_TIMEOUT_S = 15.0
"""A store that takes longer is done without."""
_SERVED_RELATIVE_SD = 0.02
"""Of the median time of a full batch inside a replica, whose spread is not reported."""


class Learner(Protocol):
    """Where measurements go; the cluster's curve store is one."""

    def add(self, tables: Mapping[str, pa.Table]) -> str:
        """Take rows by the name of their table."""
        ...

    def flush(self) -> str:
        """Have them written."""
        ...


@dataclass(slots=True)
class SearchKnowledge:
    """The prior of one search, and the way back into the store.

    Attributes:
        prior: Of every candidate; None where nothing is known, or it was not asked for.
        decomposition: Of the model; None for an application.
        cpu: Name of the CPU that serves candidates without a GPU, in profiles.
        environment: Of that CPU's machine.
        store: The cluster's, or None where it is out of reach.
    """

    prior: ExpertMixture | None
    decomposition: Decomposition | None = None
    cpu: str = ""
    environment: Environment | None = None
    store: Learner | None = None

    def learn(self, observation: Observation) -> None:
        """Add what a trial measured of the model to the store, at once.

        Replicas that share a node slow each other, and a part of a GPU is no limit of its
        compute, so only a replica that was alone on a whole device is learnt from. What an emulated
        accelerator did is what was known before.
        """
        store, rows = self.store, self._rows(observation)
        if store is None or rows is None:
            return
        try:
            store.add(rows)
            store.flush()
        except (ClusterError, InputError) as error:
            self.store = None  # a store that does not answer would slow every trial
            logger.warning("nothing more is learnt for later searches: %s", error)

    def _rows(self, observation: Observation) -> dict[str, pa.Table] | None:
        """What the store takes of an observation; None where it says nothing of the model."""
        measured = observation.measurement
        configuration = observation.configuration
        device = self._device(configuration)
        alone = (
            configuration.count("replicas", 1) == 1 and configuration.number("gpu_share", 1) == 1
        )
        if (
            self.decomposition is None
            or self.environment is None
            or measured is None
            or is_emulated(measured)
            or measured.service_time_ms is None
            or device is None
            or not alone
        ):
            return None
        on_gpu = "gpu_type" in configuration
        facts = {**self.environment.facts, **({"gpu": device} if on_gpu else {})}
        environment = Environment(facts)
        batch_size = configuration.count("batch_size", 1)
        row = {
            "model": model_key(self.decomposition),
            "batch_size": batch_size,
            "dtype": configuration.text("dtype", "float32"),
            "device": device,
            "threads": 0 if on_gpu else configuration.count("cpu_cores", 1),
            "share": 1.0,
            "mode": SERVED,
            "environment": environment.key,
            "latency_us": 1e3 * measured.service_time_ms,
            "relative_sd": _SERVED_RELATIVE_SD,
            "n": max(measured.n_requests // batch_size, 1),
            "peak_memory_bytes": None,  # a replica's resident memory is something else
            "source": OWN_SOURCE,
        }
        environments = [{"environment": environment.key, "facts": environment.text}]
        return {
            "models": pa.Table.from_pylist([row], schema=MODELS),
            "decompositions": decomposition_rows(self.decomposition),
            "environments": pa.Table.from_pylist(environments, schema=ENVIRONMENTS),
        }

    def _device(self, configuration: Configuration) -> str | None:
        """Its name in profiles; None where Ray's name stands for several cards."""
        if "gpu_type" not in configuration:
            return self.cpu or None
        name = configuration.text("gpu_type", "")
        alike = [
            each.gpu_type
            for each in Catalogue.packaged().gpus
            if name in (each.gpu_type, each.accelerator_type)
        ]
        return alike[0] if len(alike) == 1 else None


def search_knowledge(
    header: SearchHeader,
    model: ModelReference | None,
    cluster: Cluster,
    *,
    store: str | None,
    wants_prior: bool,
    note: Callable[[str], None],
) -> SearchKnowledge:
    """Connect to the cluster's store, and predict every candidate as far as it allows.

    An emulated search reads the store and adds nothing to it.

    Args:
        header: What the search is about.
        model: The model that is searched for; None for an application.
        cluster: Where its trials will run.
        store: Location of the store; None takes the cluster's own, or the default.
        wants_prior: Whether to predict at all.
        note: Told in one line what is missing.
    """
    try:
        client = CurveStoreClient(store, timeout_s=STORE_TIMEOUT_S)
    except (ClusterError, InputError) as error:
        note(f"nothing will be learnt for later searches: {error}")
        client = None
    learner = None if header.emulated else client
    if model is None:
        return SearchKnowledge(None, store=learner)
    try:
        decomposition = decompose_model(model, name=header.target)
        cpu, environment = ray.get(_serving_cpu.remote(), timeout=STORE_TIMEOUT_S)
    except (InputError, RayError) as error:
        note(f"no prior: {(str(error).splitlines() or [''])[0]}")
        return SearchKnowledge(None, store=learner)
    prior = None
    if wants_prior:
        prior = _prior(header, decomposition, cluster, client, cpu=cpu, note=note)
    return SearchKnowledge(prior, decomposition, cpu, environment, learner)


def _prior(
    header: SearchHeader,
    decomposition: Decomposition,
    cluster: Cluster,
    client: CurveStoreClient | None,
    *,
    cpu: str,
    note: Callable[[str], None],
) -> ExpertMixture | None:
    try:
        packaged = packaged_profile()
        profile = packaged if client is None else packaged.merged(client.profile())
        return expert_mixture(
            header.space,
            decomposition,
            Latencies(profile, Catalogue.packaged()),
            host=Host(
                device=cpu, ram_bytes=GIB * max(each.ram_gib for each in cluster.possible_nodes)
            ),
            slo=header.objective.slo,
            workload=Workload(
                scenario=header.objective.scenario, offered_rps=header.objective.offered_rps
            ),
            note=lambda line: note(f"thin knowledge: {line}"),
        )
    except (ClusterError, InputError) as error:
        note(f"no prior: {error}")
        return None


@ray.remote(num_cpus=0)
def _serving_cpu() -> tuple[str, Environment]:
    """The CPU of a node of the cluster, where trials run too."""
    identity = cpu_identity()
    return identity.device, cpu_environment(identity)
