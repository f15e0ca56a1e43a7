"""Everything that is decided before the first deployment: target, space, prices, baseline.

Whatever is wrong with what the user gave is noticed here, while nothing is deployed yet.
"""

import hashlib
import itertools
import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from falcon_ray.errors import InputError
from falcon_ray.optimizers.registry import OPTIMIZERS
from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.cluster_nodes import check_gpu_types
from falcon_ray.runtime.job_package import own_version
from falcon_ray.runtime.lone_latency import check_budget, lone_latency
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.placement import why_no_node_fits
from falcon_ray.runtime.ray_session import Cluster
from falcon_ray.runtime.references import parse_reference
from falcon_ray.runtime.search_nodes import describe_nodes, node_prices
from falcon_ray.runtime.search_request import SearchRequest
from falcon_ray.runtime.target import Declared, ModelTarget, Target, declared_app
from falcon_ray.runtime.torch_model import TORCH_DTYPES, ExampleInputs, check_model
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.constraint import Constraint
from falcon_ray.space.cost import Pricing
from falcon_ray.space.defaults import NodeShape, default_baseline, default_space
from falcon_ray.space.dimension import Value, dimension
from falcon_ray.space.workload import LoadPath, Scenario, Workload
from falcon_ray.trial.arrivals import ArrivalProcess, Poisson, read_trace
from falcon_ray.trial.load_points import CERTIFIED_STEP
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

TRACE_KEY = "arrival_trace_sha256"
"""Under which a search's settings keep what was in the trace of its arrivals."""


@dataclass(frozen=True, slots=True)
class CheckedTarget:
    """A target that works on its example request.

    Attributes:
        target: What is deployed.
        request: The example request.
        space: The space that is declared beside it, or None.
        inputs: For a model, its example inputs as a batch of one.
    """

    target: Target
    request: Any
    space: ConfigurationSpace | None = None
    inputs: ExampleInputs | None = None


def check_target(request: SearchRequest, *, directory: Path) -> CheckedTarget:
    """Import what the user named and run it once on its example input.

    Raises:
        InputError: It does not import, or does not work, or not with the load that is asked for.
    """
    arrival_process(request)
    if request.app is not None:
        if request.max_output_error is not None:
            raise InputError("max_output_error compares outputs of a model; leave it out with app")
        declared: Declared = declared_app(parse_reference(request.app, directory=directory))
        _check_path(request.workload.path, declared)
        return CheckedTarget(declared.target, declared.request, space=declared.space)
    if request.model is None:
        raise InputError("name the model or the app to serve")
    model = ModelReference(
        factory=parse_reference(request.model, directory=directory),
        seed=request.seed,
        input_shape=None if request.input_shape is None else tuple(request.input_shape),
        input_dtype=request.input_dtype,
    )
    inputs, _ = check_model(model)
    return CheckedTarget(ModelTarget(model), inputs.samples()[0], inputs=inputs)


def _check_path(path: LoadPath, declared: Declared) -> None:
    """Refuse a way into an application that it does not have.

    Raises:
        InputError: It does not have it.
    """
    target = declared.target
    if path is LoadPath.REPLICA and not target.reports_facts:
        raise InputError(
            f"load_path replica loads a model inside our own replica, and {target.name} is an "
            "application; give load_path handle or http"
        )
    if path is LoadPath.HTTP and target.method != "__call__":
        raise InputError(
            f"load_path http enters {target.name} by its __call__, and {target.name}_method names "
            f"{target.method!r}; give load_path handle"
        )
    if path is LoadPath.HTTP:
        target.http_body(declared.request)


def arrival_process(request: SearchRequest) -> ArrivalProcess:
    """When requests arrive in open loop.

    Raises:
        InputError: The trace cannot be read, or is none.
    """
    if request.arrival_trace is None:
        return Poisson()
    return read_trace(Path(request.arrival_trace))


def check_certifiable(plan: MeasurementPlan) -> None:
    """Refuse a given rate that is too low to be certified in the time that a load may take.

    Raises:
        InputError: It is.
    """
    given, slo = plan.workload.offered_rps, plan.slo
    if given is None or slo is None or given >= plan.lowest_certifiable_rps:
        return
    raise InputError(
        f"offered_rps {given:g} is too low to certify p{slo.latency_percentile:g} within "
        f"{plan.certify_max_s:g} s: that takes {plan.requests_to_certify} requests; give at least "
        f"{plan.lowest_certifiable_rps:.3g}, or a lower latency_percentile"
    )


def search_header(
    request: SearchRequest,
    checked: CheckedTarget,
    nodes: Sequence[NodeShape],
    *,
    directory: Path,
) -> SearchHeader:
    """What the search is about, with all defaults decided.

    Args:
        request: What was asked.
        checked: Its target.
        nodes: What the cluster has, and what can be added to it.
        directory: Where the target was looked up, for a search that goes on elsewhere.

    Raises:
        ClusterError: A GPU is not in the catalogue, or is asked for and nowhere to be had.
        InputError: The space is empty or contradicts itself, something has no price, or the given
            rate cannot be certified.
    """
    check_certifiable(measurement_plan(request))
    if request.optimizer not in OPTIMIZERS:
        raise InputError(
            f"there is no optimizer {request.optimizer!r}; known are {', '.join(OPTIMIZERS)}"
        )
    check_gpu_types(nodes, (request.search_space or {}).get("gpu_type", ()))
    default = checked.space or default_space(nodes)
    space = search_space(
        default, values=request.search_space or {}, constraints=request.space_constraints
    )
    baseline = _baseline(request, space, nodes, default.constraints)
    if checked.inputs is not None:
        dtypes = [each.values for each in space.dimensions if each.name == "dtype"]
        for dtype in (*itertools.chain(*dtypes), baseline.text("dtype", "float32")):
            _check_dtype(dtype)
    pricing = Pricing(node_prices(nodes, usd_per_hour=request.usd_per_hour))
    pricing.usd_per_hour((*space.candidates, baseline))
    target = checked.target
    return SearchHeader(
        search_id=secrets.token_hex(3),
        target=request.model or request.app or "",
        settings={
            "request": request.to_json(),
            "directory": str(directory),
            "nodes": describe_nodes(nodes),
            TRACE_KEY: _trace_digest(request),
            "serve": {
                "name": target.name.replace("_", "-"),
                "import_path": target.import_path,
                "arguments": target.arguments(),
            },
        },
        space=space,
        objective=request.objective,
        pricing=pricing,
        seed=request.seed,
        baseline=baseline,
        versions={
            "python": platform.python_version(),
            "falcon-ray": own_version(),
            **{name: version(name) for name in ("ray", "torch", "numpy")},
        },
        capacity_step=CERTIFIED_STEP if _finds_a_rate(request.workload) else None,
    )


def check_latency_budget(header: SearchHeader, checked: CheckedTarget, cluster: Cluster) -> None:
    """Refuse a latency limit that the model itself breaks, as far as this machine can tell.

    It can where it is the whole cluster and no candidate runs on a GPU.

    Raises:
        InputError: The limit is below the model's latency without any service around it.
    """
    slo, target, inputs = header.objective.slo, checked.target, checked.inputs
    by_name = {each.name: each.values for each in header.space.dimensions}
    on_gpu = any(name == "n_gpus" or name.startswith("gpu_") for name in by_name)
    if slo is None or inputs is None or on_gpu or not cluster.is_local:
        return
    assert isinstance(target, ModelTarget)
    fastest = lone_latency(
        target.model,
        inputs,
        dtypes=[str(each) for each in by_name.get("dtype", ("float32",))],
        threads=[max(1, int(each)) for each in by_name.get("cpu_cores", (1,))],
        enough_ms=slo.latency_budget_ms,
    )
    check_budget(slo, fastest)


def check_same_trace(header: SearchHeader, request: SearchRequest) -> None:
    """Refuse to go on with other arrivals than those that the search began with.

    Raises:
        InputError: The file of the trace has changed, or cannot be read.
    """
    before = header.settings.get(TRACE_KEY)
    if before is not None and before != _trace_digest(request):
        raise InputError(
            f"arrival trace {request.arrival_trace} has changed since the search began; restore "
            "the file, or start a new search"
        )


def _trace_digest(request: SearchRequest) -> str | None:
    """SHA-256 of the trace's file in hexadecimal; None without a trace."""
    if request.arrival_trace is None:
        return None
    path = Path(request.arrival_trace)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"arrival trace {path} cannot be read: {error.strerror}; restore the file"
        ) from error


def search_space(
    default: ConfigurationSpace,
    *,
    values: Mapping[str, Sequence[Value]],
    constraints: Sequence[str],
) -> ConfigurationSpace:
    """The default space with the user's values and constraints on top.

    Args:
        default: What the cluster suggests.
        values: By dimension name; they replace a dimension's values or add a dimension.
        constraints: Further conditions, as expressions.

    Raises:
        InputError: A value or a constraint is wrong, or nothing is left.
    """
    wanted = dict(values)
    dimensions = [
        dimension(each.name, wanted.pop(each.name)) if each.name in wanted else each
        for each in default.dimensions
    ]
    dimensions += [dimension(name, choices) for name, choices in wanted.items()]
    further = [Constraint(expression) for expression in constraints]
    space = ConfigurationSpace(tuple(dimensions), (*default.constraints, *further))
    if len(space) == 0:
        raise InputError("no configuration is left; widen search_space")
    return space


def measurement_plan(request: SearchRequest) -> MeasurementPlan:
    """How long and how exactly each trial is measured, and under which load.

    Raises:
        InputError: The trace of arrivals cannot be read.
    """
    return MeasurementPlan(
        warm_up=WarmUpRule(min_s=min(1.5, request.warm_up_s), max_s=request.warm_up_s),
        precision=PrecisionRule(min_s=min(3.0, request.measure_s), max_s=request.measure_s),
        workload=request.workload,
        arrivals=arrival_process(request),
        slo=request.slo,
        max_output_error=request.max_output_error,
        seed=request.seed,
    )


def _finds_a_rate(workload: Workload) -> bool:
    """Whether trials look for the highest rate that keeps a limit."""
    return workload.scenario is Scenario.SERVER and workload.offered_rps is None


def _check_dtype(dtype: object) -> None:
    if dtype not in TORCH_DTYPES:
        raise InputError(
            f"dtype {dtype!r} is none that a model can be served in: {', '.join(TORCH_DTYPES)}"
        )


def _baseline(
    request: SearchRequest,
    space: ConfigurationSpace,
    nodes: Sequence[NodeShape],
    cluster_limits: Sequence[Constraint],
) -> Configuration:
    """The user's configuration over that of plain Serve; it may lie outside the space."""
    values = dict(default_baseline(space))
    for name, value in (request.baseline or {}).items():
        if name not in values:
            raise InputError(
                f"baseline: {name!r} is no dimension of this space: {', '.join(values)}"
            )
        values[name] = dimension(name, [value]).values[0]
    if reason := why_no_node_fits(Configuration(values), nodes):
        raise InputError(f"baseline: {reason}; give --baseline values that fit")
    for limit in cluster_limits:
        if not limit.holds(values):
            raise InputError(
                f"baseline: {Configuration(values)} breaks '{limit.expression}', so this cluster "
                "cannot run it; give --baseline values that it can"
            )
    return Configuration(values)
