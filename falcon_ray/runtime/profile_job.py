"""Measuring every distinct device of a Ray cluster, in parallel, into the cluster's curve store.

What the tasks measure is stored block by block as it comes: what was stored is not measured again.
"""

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from falcon_ray.errors import ClusterError, FalconRayError, InputError, SearchInterruptedError
from falcon_ray.knowledge.device import DeviceKind
from falcon_ray.knowledge.operators.operator import Decomposition, Family
from falcon_ray.knowledge.profile.decompositions import decomposition_rows, model_key
from falcon_ray.knowledge.profile.directory import first_line
from falcon_ray.knowledge.profile.files import (
    check_writable,
    default_location,
    resolved_location,
)
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.schemas import TABLES
from falcon_ray.knowledge.profile.tables import device_row
from falcon_ray.profiling.device_profile import Block
from falcon_ray.profiling.shape_design import FAMILIES
from falcon_ray.profiling.zoo.registry import REFERENCE_MODELS
from falcon_ray.runtime.curve_store import CurveStoreClient
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.profile_request import (
    ProfileDisplay,
    ProfileRequest,
    ProfileResult,
    SilentProfileDisplay,
)
from falcon_ray.runtime.profile_site import (
    Site,
    SitePlan,
    Start,
    on_node,
    site_profile,
    sites_of_cluster,
)
from falcon_ray.runtime.ray_session import ray_session
from falcon_ray.runtime.references import Reference, parse_reference
from falcon_ray.runtime.torch_model import check_model

_POLL_S = 1.0
_REFERENCES = tuple((name, Reference(each.factory)) for name, each in REFERENCE_MODELS.items())
_BUSY_CORES = 0.3


def profile(request: ProfileRequest, display: ProfileDisplay | None = None) -> ProfileResult:
    """Measure every distinct device of a cluster and store what comes, block by block.

    Args:
        request: What to measure.
        display: Told about progress.

    Raises:
        InputError: Something given cannot work, the profile cannot be written, or the cluster's
            store has another location; then nothing was measured.
        ClusterError: Ray is out of reach, or breaks, or measured on no device.
        SearchInterruptedError: Stopped by Ctrl-C; what was stored stays, and the message holds
            the command that goes on.
    """
    shown = display or SilentProfileDisplay()
    location = resolved_location(request.location or default_location())
    if request.location is not None or not _joins_cluster(request.address):
        check_writable(location)
    models = _models(request, directory=Path.cwd())
    families = tuple(Family(each) for each in request.families)
    if not request.models and not families:
        families = FAMILIES
    result = ProfileResult(location)
    # Shapes are chosen near to those of the reference models, whichever models are run.
    near = _REFERENCES if families else ()
    decompositions = _decompositions(dict((*near, *models)).items(), shown)
    try:
        with ray_session(request.address) as cluster:
            store = CurveStoreClient(request.location)
            result.location = store.location
            plan = _plan(request, models, families, store.profile(), decompositions)
            sites = _usable(sites_of_cluster(), plan, shown)
            store.add({"decompositions": _rows_of(models, decompositions)})
            with closing(measured(sites, plan, shown)) as items:
                for site, item in items:
                    _take(store, site, item, result, shown)
            store.flush()
            if cluster.is_local:
                store.close()
    except KeyboardInterrupt:
        raise SearchInterruptedError(
            f"interrupted after {result.n_operators} operators and {result.n_models} models, which "
            f"are in {result.location}; go on with: {request.command}"
        ) from None
    except RayError as error:
        raise ClusterError(
            f"Ray failed: {type(error).__name__}: {first_line(error)}; what was measured is in "
            f"{result.location}; mend that, then go on with: {request.command}"
        ) from error
    finally:
        shown.close()
    return result


def _joins_cluster(address: str | None) -> bool:
    """Whether there is a cluster, which may have a store elsewhere."""
    return bool(address or os.environ.get("RAY_ADDRESS")) or ray.is_initialized()


def _models(request: ProfileRequest, *, directory: Path) -> tuple[tuple[str, Reference], ...]:
    """Names and references; a user's own models are run once, so that faults show at once."""
    if not request.models and not request.families:
        return _REFERENCES
    models = tuple((name, parse_reference(name, directory=directory)) for name in request.models)
    for name, reference in models:
        if name not in REFERENCE_MODELS:
            check_model(ModelReference(reference))
    return models


def _decompositions(
    models: Iterable[tuple[str, Reference]], display: ProfileDisplay
) -> dict[str, Decomposition]:
    """By the name that the user typed; a model that cannot be traced is run."""
    found: dict[str, Decomposition] = {}
    for name, reference in models:
        model = ModelReference(reference)
        try:
            found[name] = decompose_model(model, name=name)
        except InputError as error:
            display.note(f"{error}: running it")
            found[name] = decompose_model(model, name=name, by_running=True)
    return found


def _rows_of(
    models: Sequence[tuple[str, Reference]], decompositions: Mapping[str, Decomposition]
) -> pa.Table:
    tables = [decomposition_rows(decompositions[name]) for name, _ in models]
    return pa.concat_tables([TABLES["decompositions"].empty_table(), *tables])


def _plan(
    request: ProfileRequest,
    models: tuple[tuple[str, Reference], ...],
    families: tuple[Family, ...],
    known: Profile,
    decompositions: Mapping[str, Decomposition],
) -> SitePlan:
    columns = [
        "dtype",
        "device",
        "threads",
        "share",
        "mode",
        "environment",
        "latency_us",
        "relative_sd",
    ]
    return SitePlan(
        request=request,
        models=tuple((model_key(decompositions[name]), each) for name, each in models),
        families=families,
        decompositions=[decompositions[name] for name in REFERENCE_MODELS if families],
        operators=known.operators.select(["op", "family", "dims", *columns]).to_pylist(),
        model_rows=known.models.select(["model", "batch_size", *columns]).to_pylist(),
        devices=known.devices(),
    )


def _usable(sites: Sequence[Site], plan: SitePlan, display: ProfileDisplay) -> list[Site]:
    """Sites where something of what was asked can be measured; the display is told the rest."""
    for site in sites:
        asked = () if site.gpu_type else plan.request.threads
        left_out = sorted(set(asked) - set(plan.request.threads_on(site.cpu.cores)))
        if left_out:
            display.note(f"{site.name}: not measured with {_threads(left_out)}, for lack of cores")
    usable = [site for site in sites if plan.settings(site)]
    if not usable:
        most = max(site.cpu.cores for site in sites)
        raise InputError(
            f"no CPU of the cluster has cores for {_threads(plan.request.threads)}; ask for at "
            f"most {most}, or leave the threads out"
        )
    return usable


def _threads(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers))} thread{'s' if max(numbers) > 1 else ''}"


def measured(
    sites: Sequence[Site], plan: SitePlan, display: ProfileDisplay
) -> Generator[tuple[Site, Start | Block | FalconRayError]]:
    """What the tasks of all sites yield, as it comes; of a site that fails, its error.

    Raises:
        FalconRayError: All sites failed before anything was measured; the first error.
    """
    shared: Any = ray.put(plan)
    running: dict[Any, Site] = {}
    failures: list[FalconRayError] = []
    is_vain = True
    for site in sites:
        display.note(f"measuring {site.name}")
        task = site_profile.options(
            num_cpus=site.cpus,
            num_gpus=1 if site.gpu_type else 0,
            scheduling_strategy=on_node(site.node_id),
        )
        running[task.remote(site, shared)] = site
    try:
        while running:
            ready, _ = ray.wait(list(running), timeout=_POLL_S)
            for generator in ready:
                stream: Any = generator
                site = running[generator]
                try:
                    item: Any = ray.get(next(stream))
                except StopIteration:
                    del running[generator]
                    continue
                except RayError as error:
                    del running[generator]
                    ray.cancel(stream, force=True)
                    item = _failure(error)
                    failures.append(item)
                    if is_vain and not running:
                        raise failures[0] from None
                is_vain = is_vain and not isinstance(item, Block)
                yield site, item
    finally:
        for generator in running:
            ray.cancel(generator, force=True)


def _failure(error: RayError) -> FalconRayError:
    reason: Exception = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(reason, FalconRayError):
        return reason
    return ClusterError(
        f"the measuring task failed: {type(reason).__name__}: {first_line(reason)}; look after "
        "its node, then profile again"
    )


def _take(
    store: CurveStoreClient,
    site: Site,
    item: Start | Block | FalconRayError,
    result: ProfileResult,
    display: ProfileDisplay,
) -> None:
    """Store what a site yielded, and say so."""
    if isinstance(item, FalconRayError):
        text = f"{site.name}: {item}"
        display.note(f"skipped {text}")
        result.skipped.append(text)
        return
    if isinstance(item, Start):
        result.devices.append(item.device.name)
        if item.busy_cores > _BUSY_CORES:
            display.note(
                f"other processes keep {item.busy_cores:.1f} CPU cores busy on the node of "
                f"{item.device.name}: times with several threads will be too long; measure again "
                "once it is quiet"
            )
        rows: dict[str, list[dict[str, Any]]] = {
            "environments": [{"environment": item.environment.key, "facts": item.environment.text}]
        }
        if item.device.kind is DeviceKind.CPU:
            rows["devices"] = [device_row(item.device)]
    else:
        rows = {"operators": list(item.operators), "models": list(item.models)}
        display.progress(site.name, doing=item.doing, n_done=item.n_done, n_total=item.n_total)
        for text in item.skipped:
            display.note(f"skipped {text}")
    tables = {
        name: pa.Table.from_pylist(some, schema=TABLES[name]) for name, some in rows.items() if some
    }
    if tables:
        store.add(tables)
        store.flush()
    if isinstance(item, Block):
        result.n_operators += len(item.operators)
        result.n_models += len(item.models)
        result.skipped += item.skipped
        if item.is_last:
            result.n_left += item.n_total - item.n_done
