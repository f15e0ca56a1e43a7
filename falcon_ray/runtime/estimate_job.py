"""From a model's name to an estimate: trace it, ask the knowledge, compare all configurations.

Nothing is deployed and nothing is run; neither Ray nor a GPU is needed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from falcon_ray.errors import InputError, UnknownDeviceError
from falcon_ray.knowledge.cells import UNDERSTOOD
from falcon_ray.knowledge.latency.family_model import half_width_in_sd
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.operators.operator import Decomposition, Family
from falcon_ray.knowledge.prior import Host, Prior, expected_metrics
from falcon_ray.knowledge.profile.decompositions import decompositions_of
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.profiling.device_facts import cpu_identity
from falcon_ray.report.estimate import (
    INTERVAL_PERCENT,
    Estimate,
    Expected,
    ExpectedConfiguration,
)
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.estimate_llm import CONFIG_SUFFIX, estimate_llm
from falcon_ray.runtime.estimate_operators import operator_part
from falcon_ray.runtime.estimate_request import THIS_CPU, EstimateRequest
from falcon_ray.runtime.known_profile import describe_sources, known_profile
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.ray_session import GIB
from falcon_ray.runtime.references import parse_reference
from falcon_ray.runtime.search_nodes import node_prices
from falcon_ray.runtime.search_setup import search_space
from falcon_ray.space.catalogue import Catalogue, InstanceStatus, did_you_mean
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.cost import Pricing
from falcon_ray.space.defaults import NodeShape, default_space
from falcon_ray.space.dimension import Value
from falcon_ray.space.objective import SECONDS_PER_HOUR, Objective

_LEFT_OUT: dict[str, Sequence[Value]] = {
    "cpu_cores": (1,),
    "replicas": (1,),
    "batch_wait_ms": (0,),
}
"""What an estimate leaves out of the default space of GPUs: there it changes no price a request."""
_LIKELY = 0.5
_TIE_DIGITS = 2
"""Of the log of a score: what differs by less than about 1 % is equally good."""
_HALF_WIDTH_IN_SD = half_width_in_sd(INTERVAL_PERCENT / 100)


@dataclass(frozen=True, slots=True)
class Place:
    """Nodes whose configurations are compared, and the CPU that serves those without a GPU."""

    nodes: tuple[NodeShape, ...]
    host: Host


@dataclass(frozen=True, slots=True)
class Compared:
    """Candidates of one space with what is expected of them; arrays of shape (n,)."""

    space: ConfigurationSpace
    host: Host
    prior: Prior
    usd_per_hour: FloatArray
    scores: FloatArray

    @property
    def sd(self) -> FloatArray:
        """Of the log of what is paid for."""
        return next(iter(self.prior.metrics.values())).sd

    def rank(self, index: int) -> tuple[float, float, float]:
        """Sorts candidates: the best first; of equally good ones the surest, then the cheapest."""
        score = round(float(np.log(max(self.scores[index], 1e-9))), _TIE_DIGITS)
        return -score, round(float(self.sd[index]), 6), float(self.usd_per_hour[index])

    def device_of(self, index: int) -> str:
        """What a candidate runs on."""
        return self.space.candidates[index].text("gpu_type", self.host.device)


def estimate(request: EstimateRequest, packaged: Profile | None = None) -> Estimate:
    """What is expected of a model on every configuration, without a trial.

    Args:
        request: What to estimate.
        packaged: Knowledge in place of what comes with falcon_ray.

    Raises:
        InputError: The model cannot be traced, or nothing is known about any device.
    """
    profile = known_profile(request.store, packaged)
    if request.model.endswith(CONFIG_SUFFIX):
        return estimate_llm(request, profile)
    decomposition = _decomposition(request, profile)
    latencies = Latencies(profile, Catalogue.packaged())
    objective = Objective(request.slo)
    places, unknown = _known_places(request, latencies)
    compared = [_compare(request, place, decomposition, latencies, objective) for place in places]
    ranked = sorted(
        ((each, i) for each in compared for i in _best_rows(each, request.top)),
        key=lambda row: row[0].rank(row[1]),
    )
    rows = [_expected(each, i, objective) for each, i in ranked]
    by_device: dict[str, ExpectedConfiguration] = {}
    for row in rows:
        by_device.setdefault(row.device, row)
    operators = (
        None
        if not ranked
        else operator_part(
            decomposition,
            latencies,
            ranked[0][0].space.candidates[ranked[0][1]],
            device=rows[0].device,
            usd_per_hour=rows[0].usd_per_hour,
        )
    )
    warnings = dict.fromkeys(unknown)
    for each in compared:
        warnings |= dict.fromkeys(each.prior.warnings)
    if decomposition.uncovered:
        names = ", ".join(decomposition.uncovered)
        warnings[f"no rule knows these operators, so only their bytes count: {names}"] = None
    return Estimate(
        target=request.model,
        model=describe_model(decomposition),
        closest="" if rows else _closest(compared, objective),
        n_candidates=sum(len(each.space) for each in compared),
        best_by_device=tuple(by_device.values()),
        top=tuple(rows[: request.top]),
        operators=operators,
        unfit=tuple(line for each in compared for line in _unfit_lines(each, latencies)),
        warnings=tuple(warnings),
        knowledge=describe_sources(profile),
    )


def describe_model(decomposition: Decomposition) -> str:
    """Parameters, work and memory of one request, in words."""
    calls = decomposition.calls(np.array([1.0]))
    flops = sum(float(each.flops[0] @ each.counts) for each in calls)
    n_operators = sum(int(each.counts.sum()) for each in calls if each.family is not Family.VIEW)
    activations = float(decomposition.activation_bytes_at(np.array([1.0]))[0])
    return (
        f"{decomposition.parameter_bytes / 4e6:,.1f} M parameters, {flops / 1e9:,.3g} GFLOPs and "
        f"{activations / 2**20:,.1f} MiB of activations a request, {n_operators} operator calls"
    )


def _decomposition(request: EstimateRequest, profile: Profile) -> Decomposition:
    """The model's operators; of one that cannot be traced, as a profile of its runs has them.

    Raises:
        InputError: It cannot be traced and was not profiled.
    """
    try:
        return decompose_model(_reference(request), name=request.model)
    except InputError:
        known = decompositions_of(profile.table("decompositions"))
        own = [each for each in known.values() if each.model == request.model]
        if not own:
            raise
        return own[-1]


def _reference(request: EstimateRequest) -> ModelReference:
    return ModelReference(
        factory=parse_reference(request.model, directory=Path.cwd()),
        input_shape=None if request.input_shape is None else tuple(request.input_shape),
        input_dtype=request.input_dtype,
    )


def _known_places(request: EstimateRequest, latencies: Latencies) -> tuple[list[Place], list[str]]:
    """Where to compare, and why not elsewhere.

    Raises:
        InputError: Nothing is known about any device that was asked for.
    """
    catalogue = Catalogue.packaged()
    names = list(request.devices) or [
        *dict.fromkeys(
            each.gpu_type
            for each in catalogue.instances
            if each.gpu_type is not None and each.status is InstanceStatus.ACTIVE
        ),
        THIS_CPU,
    ]
    gpus: list[NodeShape] = []
    places: list[Place] = []
    unknown: list[str] = []
    for name in names:
        try:
            if name == THIS_CPU:
                latencies.on(cpu_identity().device, "float32").check_known()
                places.append(_this_machine())
            else:
                latencies.on(name, "float32").check_known()
                gpus.append(_one_gpu(name, catalogue))
        except UnknownDeviceError as error:
            unknown.append(str(error))
    if gpus:
        places.insert(0, Place(tuple(gpus), Host(device="", ram_bytes=0.0)))
    if not places:
        raise InputError(unknown[0] if unknown else "name a device to estimate for")
    return places, unknown


def _one_gpu(name: str, catalogue: Catalogue) -> NodeShape:
    """One GPU's part of the smallest instance that has it."""
    offers = catalogue.instances_with(name)
    if not offers:
        raise InputError(
            f"no instance with a {name} has a price; add a row to falcon_ray/data/instances.csv"
        )
    smallest = min(offers, key=lambda each: (each.n_gpus, each.usd_per_hour))
    return NodeShape(
        cpus=max(smallest.vcpus // smallest.n_gpus, 1),
        ram_gib=smallest.ram_gib / smallest.n_gpus,
        gpu_type=name,
        n_gpus=1,
    )


def _this_machine() -> Place:
    ram_bytes = float(psutil.virtual_memory().total)
    node = NodeShape(cpus=os.cpu_count() or 1, ram_gib=ram_bytes / GIB, gpu_type=None, n_gpus=0)
    return Place((node,), Host(device=cpu_identity().device, ram_bytes=ram_bytes))


def _compare(
    request: EstimateRequest,
    place: Place,
    decomposition: Decomposition,
    latencies: Latencies,
    objective: Objective,
) -> Compared:
    for name in request.search_space or {}:
        if name not in UNDERSTOOD:
            raise InputError(
                f"nothing is known of what {name!r} does{did_you_mean(name, UNDERSTOOD)}; an "
                f"estimate understands {', '.join(sorted(UNDERSTOOD))}"
            )
    on_gpus = any(node.n_gpus for node in place.nodes)
    values = {**(_LEFT_OUT if on_gpus else {}), **(request.search_space or {})}
    default = _without(default_space(place.nodes), "gpu_memory_gib")
    space = search_space(default, values=values, constraints=request.space_constraints)
    prior = expected_metrics(space, decomposition, latencies, host=place.host, slo=objective.slo)
    usd_per_hour = Pricing(node_prices(place.nodes, usd_per_hour=None)).usd_per_hour(
        space.candidates
    )
    means = {name: np.exp(each.mean) for name, each in prior.metrics.items()}
    scores = objective.score(means, usd_per_hour)
    return Compared(
        space,
        place.host,
        prior,
        usd_per_hour,
        np.where(prior.probability_fits > _LIKELY, scores, 0),
    )


def _without(space: ConfigurationSpace, name: str) -> ConfigurationSpace:
    """A space without a dimension and the constraints that name it.

    A share of a GPU then comes with the same share of its memory.
    """
    return ConfigurationSpace(
        tuple(each for each in space.dimensions if each.name != name),
        tuple(each for each in space.constraints if name not in each.names),
    )


def _best_rows(compared: Compared, top: int) -> Iterator[int]:
    """The best candidates of all, and the best of each device, without those that score 0."""
    scores = np.round(np.log(np.maximum(compared.scores, 1e-9)), _TIE_DIGITS)
    order = np.lexsort((compared.usd_per_hour, np.round(compared.sd, 6), -scores))
    seen: set[str] = set()
    for place, i in enumerate(order):
        if compared.scores[i] <= 0:
            return
        device = compared.device_of(int(i))
        if place < top or device not in seen:
            yield int(i)
        seen.add(device)


def _closest(compared: Sequence[Compared], objective: Objective) -> str:
    """What comes nearest where nothing is expected to work, in words."""
    slo = objective.slo
    if slo is not None:
        floors = [each.prior.metrics["floor_latency_ms"].mean for each in compared]
        which = int(np.argmin([each.min() for each in floors]))
        i = int(np.argmin(floors[which]))
        return (
            f"closest is {compared[which].space.candidates[i]}: {np.exp(floors[which][i]):.3g} ms "
            f"when idle, {slo.latency_budget_ms:g} ms allowed"
        )
    which = int(np.argmax([each.prior.probability_fits.max() for each in compared]))
    i = int(np.argmax(compared[which].prior.probability_fits))
    gib = float(compared[which].prior.memory_bytes[i]) / GIB
    return f"closest is {compared[which].space.candidates[i]}, which needs {gib:,.1f} GiB"


def _expected(compared: Compared, i: int, objective: Objective) -> ExpectedConfiguration:
    metrics = {
        name: Expected.of_log(float(each.mean[i]), _HALF_WIDTH_IN_SD * float(each.sd[i]))
        for name, each in compared.prior.metrics.items()
    }
    usd = float(compared.usd_per_hour[i])
    return ExpectedConfiguration(
        configuration=compared.space.candidates[i],
        device=compared.device_of(i),
        usd_per_hour=usd,
        requests_per_dollar=metrics[objective.rate_metric].times(SECONDS_PER_HOUR / usd),
        metrics=metrics,
        memory_gib=float(compared.prior.memory_bytes[i]) / GIB,
        probability_fits=float(compared.prior.probability_fits[i]),
    )


def _unfit_lines(compared: Compared, latencies: Latencies) -> list[str]:
    """The smallest batch that a whole device does not hold, per device and dtype."""
    smallest: dict[tuple[str, str], tuple[int, float]] = {}
    for i in np.flatnonzero(compared.prior.probability_fits <= _LIKELY):
        candidate = compared.space.candidates[int(i)]
        needed = float(compared.prior.memory_bytes[i])
        key = (compared.device_of(int(i)), candidate.text("dtype", "float32"))
        if needed > latencies.device(key[0]).memory_bytes:
            found = (candidate.count("batch_size", 1), needed / GIB)
            smallest[key] = min(smallest.get(key, found), found)
    return [
        f"{device}, {dtype}: from batch {batch} on ({gib:.1f} GiB)"
        for (device, dtype), (batch, gib) in sorted(smallest.items())
    ]
