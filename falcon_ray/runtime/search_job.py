"""One search from request to result: what is asked, what is there already, what is handed back.

Everything that happens goes into the journal before anything is concluded from it, so that a
search that is killed at any moment can be resumed and measures nothing twice. How its trials run
is known in `search_trials.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile.files import (
    check_writable,
    resolved_location,
)
from falcon_ray.report.files import write_report
from falcon_ray.report.journal import Journal, holds_journal
from falcon_ray.report.record import SearchHeader, SearchRecord, read_search
from falcon_ray.report.result import SearchResult
from falcon_ray.runtime.confirmation import is_confirmed
from falcon_ray.runtime.emulated.setup import emulated_model, with_emulation
from falcon_ray.runtime.emulated.times import TimedBatch, read_batches
from falcon_ray.runtime.interruption import resumable
from falcon_ray.runtime.job_package import run_directory
from falcon_ray.runtime.known_profile import known_profile
from falcon_ray.runtime.progress import SearchDisplay, SilentDisplay
from falcon_ray.runtime.ray_session import Cluster
from falcon_ray.runtime.search_cluster import search_cluster
from falcon_ray.runtime.search_nodes import check_same_nodes
from falcon_ray.runtime.search_plan import describe_plan
from falcon_ray.runtime.search_request import SearchRequest, request_of, resumed_request
from falcon_ray.runtime.search_setup import (
    CheckedTarget,
    check_latency_budget,
    check_same_trace,
    check_target,
    search_header,
)
from falcon_ray.runtime.search_trials import SearchTrials
from falcon_ray.runtime.torch_model import write_example_request
from falcon_ray.space.observation import TrialStatus

EXAMPLE_REQUEST_NAME = "example_request.npz"
FAILED = TrialStatus.FAILED


def search(values: Mapping[str, Any], display: SearchDisplay | None = None) -> SearchResult:
    """Run a search, or go on with one, and return what it found.

    Args:
        values: Fields of `SearchRequest` by name.
        display: Told about progress.

    Raises:
        InputError: Something given cannot work; nothing was deployed.
        ClusterError: Ray is out of reach, or breaks trial after trial.
        SearchInterruptedError: Stopped by a signal; the message holds the command to go on.
    """
    shown = display or SilentDisplay()
    if values.get("resume") is not None:
        return _resume(values, shown)
    request = _with_checked_store(request_of(values))
    directory = _new_directory(request)
    checked = check_target(request, directory=Path.cwd())
    with search_cluster(request) as cluster:
        header = _planned(request, checked, cluster)
        with Journal.create(directory, header.to_json()) as journal, resumable(directory, cluster):
            if checked.inputs is not None:
                write_example_request(directory / EXAMPLE_REQUEST_NAME, checked.inputs)
            job = SearchTrials(
                directory,
                journal=journal,
                request=request,
                checked=checked,
                cluster=cluster,
                display=shown,
            )
            job.run(read_search(directory))
    return _write_files(directory)


def dry_run(values: Mapping[str, Any]) -> list[str]:
    """What a search would do, in lines for people; nothing is deployed and nothing written.

    Raises:
        InputError: Something given cannot work.
        ClusterError: Ray is out of reach.
    """
    request = request_of(values)
    if request.resume is not None:
        raise InputError("a dry run plans a new search; leave out resume")
    _new_directory(_with_checked_store(request))
    checked = check_target(request, directory=Path.cwd())
    with search_cluster(request) as cluster:
        header = _planned(request, checked, cluster)
        return describe_plan(request, header)


def _planned(request: SearchRequest, checked: CheckedTarget, cluster: Cluster) -> SearchHeader:
    header = search_header(request, checked, cluster.possible_nodes, directory=Path.cwd())
    if request.emulate:
        model = emulated_model(checked.target)
        batches, table = _given_times(request)
        known = known_profile(request.store, missing_ok=True)
        return with_emulation(header, model, known, batches, table=table)
    check_latency_budget(header, checked, cluster)
    return header


def _given_times(request: SearchRequest) -> tuple[tuple[TimedBatch, ...], str]:
    """The user's own times of emulated GPUs, and the name of their file; none without one."""
    if request.emulate_table is None:
        return (), ""
    path = Path(request.emulate_table)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"emulate_table {path} cannot be read: {error}") from error
    return read_batches(text, path.name), path.name


def _resume(values: Mapping[str, Any], display: SearchDisplay) -> SearchResult:
    directory = run_directory(values["resume"])
    with Journal.open(directory) as journal:
        record = read_search(directory)
        request = resumed_request(record.header.settings["request"], values)  # pyright: ignore[reportArgumentType]
        if is_complete(record, request):
            display.note(f"{directory} is complete; nothing is measured again")
        else:
            check_same_trace(record.header, request)
            # A job's directory is gone with it; its successor brings the same files along.
            began_in = Path(str(record.header.settings["directory"]))
            there = began_in if began_in.is_dir() else Path.cwd()
            checked = check_target(request, directory=there)
            with search_cluster(request) as cluster, resumable(directory, cluster):
                check_same_nodes(record.header, cluster.possible_nodes)
                journal.search_resumed(max_cost_usd=request.max_cost_usd)
                job = SearchTrials(
                    directory,
                    journal=journal,
                    request=request,
                    checked=checked,
                    cluster=cluster,
                    display=display,
                )
                job.run(record)
    return _write_files(directory)


def is_complete(record: SearchRecord, request: SearchRequest) -> bool:
    """Whether a search has all that it was asked for, or all that its limits allow.

    Args:
        record: What it has.
        request: What it is asked for now; another limit than before counts.
    """
    n_counted = sum(each.status is not FAILED for each in record.observations)
    if record.end_reason is None:
        return False
    early = request.stop_early and record.conclusion is not None and record.conclusion.stopped_early
    if (
        not early
        and not _is_spent(record, request)
        and n_counted < min(request.max_trials, len(record.header.space))
    ):
        return False
    return not request.confirm or is_confirmed(record, n_rounds=request.confirm_rounds)


def _is_spent(record: SearchRecord, request: SearchRequest) -> bool:
    """Whether the limit of dollars ended it, and is not higher now."""
    if record.conclusion is None or not record.conclusion.out_of_budget:
        return False
    before_usd, now_usd = record.max_cost_usd, request.max_cost_usd
    return before_usd is not None and now_usd is not None and now_usd <= before_usd


def _write_files(directory: Path) -> SearchResult:
    """What people and machines read of a search, from its journal alone."""
    record = read_search(directory)
    write_report(directory, record)
    result = SearchResult(directory, record)
    if result.exports_itself:
        result.export(directory / "serve.yaml")
    return result


def _with_checked_store(request: SearchRequest) -> SearchRequest:
    """The request with its store by full name, once that can be written.

    Raises:
        InputError: It cannot.
    """
    if request.store is None:
        return request
    check_writable(request.store)
    return replace(request, store=resolved_location(request.store))


def _new_directory(request: SearchRequest) -> Path:
    directory = run_directory(request.output_dir)
    if holds_journal(directory):
        raise InputError(
            f"{directory} holds another search; go on with it by --resume {directory}, or give "
            "another --output-dir"
        )
    return directory
