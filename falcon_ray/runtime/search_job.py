"""One search from request to result: the only place where all the parts are put together.

Everything that happens goes into the journal before anything is concluded from it, so that a
search that is killed at any moment can be resumed and measures nothing twice.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray

from falcon_ray.errors import ClusterError, InputError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.knowledge.profile.files import check_writable, resolved_location
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.registry import make_optimizer
from falcon_ray.report.confirmation import FreshTrial
from falcon_ray.report.files import write_report
from falcon_ray.report.journal import Journal, holds_journal
from falcon_ray.report.kept_prior import read_prior, write_prior
from falcon_ray.report.record import SearchHeader, SearchRecord, read_search
from falcon_ray.report.result import SearchResult
from falcon_ray.report.valuation import highest, value_trials
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.confirmation import confirm, is_confirmed, measured_in_task
from falcon_ray.runtime.incumbent import rate_to_beat_rps
from falcon_ray.runtime.interruption import resumable
from falcon_ray.runtime.progress import SearchDisplay, SilentDisplay
from falcon_ray.runtime.ray_session import Cluster, ray_session
from falcon_ray.runtime.request_records import RequestFolder
from falcon_ray.runtime.search_knowledge import SearchKnowledge, search_knowledge
from falcon_ray.runtime.search_plan import describe_plan
from falcon_ray.runtime.search_request import SearchRequest, request_of, resumed_request
from falcon_ray.runtime.search_setup import (
    CheckedTarget,
    check_latency_budget,
    check_same_nodes,
    check_same_trace,
    check_target,
    measurement_plan,
    search_header,
)
from falcon_ray.runtime.searcher import MAX_FAILED_IN_A_ROW, FalconSearch
from falcon_ray.runtime.serve_trial import TrialSetup
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.runtime.torch_model import write_example_request
from falcon_ray.runtime.tune_trials import NAME_KEY, RATE_KEY, run_trials
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.space.workload import LoadPath

EXAMPLE_REQUEST_NAME = "example_request.npz"
TUNE_NAME = ".tune"
CLEAN_UP_S = 10.0
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
    with ray_session(request.address) as cluster:
        header = _planned(request, checked, cluster)
        with Journal.create(directory, header.to_json()) as journal, resumable(directory, cluster):
            if checked.inputs is not None:
                write_example_request(directory / EXAMPLE_REQUEST_NAME, checked.inputs)
            job = _SearchJob(
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
    with ray_session(request.address) as cluster:
        header = _planned(request, checked, cluster)
        return describe_plan(request, header)


def _planned(request: SearchRequest, checked: CheckedTarget, cluster: Cluster) -> SearchHeader:
    header = search_header(request, checked, cluster.nodes, directory=Path.cwd())
    check_latency_budget(header, checked, cluster)
    return header


def _resume(values: Mapping[str, Any], display: SearchDisplay) -> SearchResult:
    directory = Path(values["resume"])
    with Journal.open(directory) as journal:
        record = read_search(directory)
        request = resumed_request(record.header.settings["request"], values)  # pyright: ignore[reportArgumentType]
        if _is_complete(record, request):
            display.note(f"{directory} is complete; nothing is measured again")
        else:
            check_same_trace(record.header, request)
            checked = check_target(
                request, directory=Path(str(record.header.settings["directory"]))
            )
            with ray_session(request.address) as cluster, resumable(directory, cluster):
                check_same_nodes(record.header, cluster.nodes)
                journal.search_resumed()
                job = _SearchJob(
                    directory,
                    journal=journal,
                    request=request,
                    checked=checked,
                    cluster=cluster,
                    display=display,
                )
                job.run(record)
    return _write_files(directory)


def _is_complete(record: SearchRecord, request: SearchRequest) -> bool:
    n_counted = sum(each.status is not FAILED for each in record.observations)
    if record.end_reason is None:
        return False
    early = request.stop_early and record.conclusion is not None and record.conclusion.stopped_early
    if not early and n_counted < min(request.max_trials, len(record.header.space)):
        return False
    return not request.confirm or is_confirmed(record, n_rounds=request.confirm_rounds)


def _write_files(directory: Path) -> SearchResult:
    """What people and machines read of a search, from its journal alone."""
    record = read_search(directory)
    write_report(directory, record)
    result = SearchResult(directory, record)
    if result.is_deployable:
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
    if request.output_dir is not None:
        directory = Path(request.output_dir)
    else:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        directory = Path("runs") / f"search-{stamp}"
    if holds_journal(directory):
        raise InputError(
            f"{directory} holds another search; go on with it by --resume {directory}, or give "
            "another --output-dir"
        )
    return directory


@dataclass
class _Running:
    """A trial that was started and has not ended."""

    number: int
    start_s: float


class _SearchJob:
    """The trials, the confirmation and the report of one search, on a connected cluster."""

    def __init__(
        self,
        directory: Path,
        *,
        journal: Journal,
        request: SearchRequest,
        checked: CheckedTarget,
        cluster: Cluster,
        display: SearchDisplay,
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._request = request
        self._checked = checked
        self._cluster = cluster
        self._display = display
        self._requests = RequestFolder.here(directory)
        self._running: dict[str, _Running] = {}
        self._next_number = 1
        self._app_prefix = ""
        self._knowledge: SearchKnowledge | None = None
        self._broken: Exception | None = None

    def run(self, record: SearchRecord) -> None:
        """Everything that the record lacks, up to the written report."""
        header = record.header
        self._app_prefix = f"falcon-{header.search_id}-"
        self._next_number = record.next_number
        best = highest(value_trials(record.trials, header.objective, header.pricing))
        self._display.search_started(
            header,
            n_done=len(record.trials),
            max_trials=self._request.max_trials,
            best=None if best is None else best.score,
        )
        is_our_serve = serve_apps.start_serve(http=self._request.workload.path is LoadPath.HTTP)
        serve_apps.delete_all(self._app_prefix, timeout_s=CLEAN_UP_S)
        try:
            self._run(header, record)
        finally:
            self._display.close()
            # A Ray of our own ends with the search, and all that is deployed with it.
            if not self._cluster.is_local:
                serve_apps.delete_all(self._app_prefix, timeout_s=CLEAN_UP_S)
                if is_our_serve:
                    serve_apps.end_serve()

    def _run(self, header: SearchHeader, record: SearchRecord) -> None:
        setup = TrialSetup(
            target=self._checked.target,
            request=ray.put(self._checked.request),
            nodes=self._cluster.nodes,
            plan=measurement_plan(self._request),
            deploy_timeout_s=self._request.deploy_timeout_s,
        )
        usd_per_hour = header.pricing.usd_per_hour(header.space.candidates)
        optimizer = make_optimizer(
            self._request.optimizer,
            header.space,
            header.objective,
            usd_per_hour,
            seed=header.seed,
            prior=self._know(header, began=bool(record.trials)),
            # Trials take about equally long, so what one costs goes with what it occupies.
            trial_cost=usd_per_hour if self._request.cost_aware else None,
        )
        searcher = FalconSearch(
            header.space,
            objective=header.objective,
            optimizer=optimizer,
            max_trials=self._request.max_trials,
            time_budget_s=self._request.time_budget_s,
            stop_early=self._request.stop_early,
            annotate=lambda configuration: self._told(configuration, header, searcher.observations),
            on_suggestion=self._started,
            on_observation=self._ended,
        )
        # What the infrastructure broke before may work now, and is worth another trial.
        searcher.replay(each for each in record.observations if each.status is not FAILED)
        try:
            run_trials(
                searcher,
                setup,
                requests=self._requests,
                app_prefix=self._app_prefix,
                scratch=self._directory / TUNE_NAME,
                display=self._display,
            )
        except ClusterError:
            # Tune wraps what a listener raises, which says better what happened.
            if self._broken is not None:
                raise self._broken from None
            raise
        if searcher.failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            reason = searcher.observations[-1].reason
            raise ClusterError(f"{searcher.end_reason}, the last one because: {reason}")
        best = optimizer.recommend()
        if best is not None and self._request.confirm:
            self._confirm(best.configuration, setup)
        outlook = searcher.outlook
        self._journal.search_ended(
            searcher.end_reason,
            recommended=None if best is None else best.configuration,
            expected_gain=None if outlook is None else outlook.expected_gain,
            probability_of_better=None if outlook is None else outlook.probability_of_better,
            stopped_early=searcher.stopped_early,
        )

    def _know(self, header: SearchHeader, *, began: bool) -> ExpertMixture | None:
        """Connect to what is known; a search that goes on keeps the prior that it began with."""
        target = self._checked.target
        self._knowledge = search_knowledge(
            header,
            target.model if isinstance(target, ModelTarget) else None,
            self._cluster,
            store=self._request.store,
            wants_prior=self._request.prior and not began,
            note=self._display.note,
        )
        if not began and self._knowledge.prior is not None:
            write_prior(self._directory, self._knowledge.prior)
        return read_prior(self._directory)

    def _started(self, trial_id: str, suggestion: Suggestion) -> None:
        number, self._next_number = self._next_number, self._next_number + 1
        self._running[trial_id] = _Running(number, time.monotonic())
        with self._keeping_errors():
            self._journal.trial_started(
                number, suggestion.configuration, why=suggestion.why, expected=suggestion.expected
            )
        self._display.trial_started(f"Trial {number}", suggestion.configuration, suggestion.why)

    def _told(
        self, configuration: Configuration, header: SearchHeader, tried: Sequence[Observation]
    ) -> dict[str, Value]:
        """What a trial is told beside its configuration: its name, and what it has to beat."""
        told: dict[str, Value] = {NAME_KEY: f"trial-{self._next_number - 1}"}
        to_beat = rate_to_beat_rps(
            tried, configuration, objective=header.objective, pricing=header.pricing
        )
        return told if to_beat is None else {**told, RATE_KEY: to_beat}

    def _ended(self, trial_id: str, observation: Observation) -> None:
        running = self._running.pop(trial_id)
        wall_s = time.monotonic() - running.start_s
        with self._keeping_errors():
            self._journal.trial_ended(running.number, observation, wall_s=wall_s)
        self._display.trial_ended(observation, wall_s=wall_s)
        if self._knowledge is not None:
            self._knowledge.learn(observation)
        if observation.status is FAILED:
            # A process that was killed has deleted nothing, and the next trial needs its place.
            serve_apps.delete_all(self._app_prefix, timeout_s=CLEAN_UP_S)

    @contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._broken = error
            raise

    def _confirm(self, best: Configuration, setup: TrialSetup) -> None:
        """Measure afresh what the journal lacks of the best, the runner-up and the baseline."""
        n_trials = len(read_search(self._directory).trials)

        def measure(trial: FreshTrial) -> Observation:
            observation = measured_in_task(
                trial,
                setup,
                requests=self._requests,
                app_prefix=self._app_prefix,
                n_trials=n_trials,
            )
            if observation.status is FAILED:
                serve_apps.delete_all(self._app_prefix, timeout_s=CLEAN_UP_S)
            return observation

        confirm(
            best,
            directory=self._directory,
            journal=self._journal,
            n_rounds=self._request.confirm_rounds,
            measure=measure,
            display=self._display,
        )
