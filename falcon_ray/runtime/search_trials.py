"""The trials and the confirmation of one search, on a connected cluster.

The one place where optimizer, knowledge, ledger, Tune, journal and display are put together. What
was asked, and what becomes of the journal, is known in `search_job.py`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from falcon_ray.errors import ClusterError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.registry import make_optimizer
from falcon_ray.report.confirmation import FreshTrial
from falcon_ray.report.journal import Journal
from falcon_ray.report.kept_prior import read_prior, write_prior
from falcon_ray.report.record import SearchHeader, SearchRecord, read_search
from falcon_ray.report.spend import spend
from falcon_ray.report.valuation import highest, value_trials
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.cluster_ledger import cluster_ledger, renew_ledger
from falcon_ray.runtime.cluster_nodes import ledger_nodes
from falcon_ray.runtime.cluster_readiness import ClusterReadiness
from falcon_ray.runtime.confirmation import confirm, confirmation_app, measured_in_task
from falcon_ray.runtime.emulated.replica import EMULATED_REQUEST
from falcon_ray.runtime.emulated.setup import emulated_model, emulated_target
from falcon_ray.runtime.held_times import HeldTimes
from falcon_ray.runtime.incumbent import rate_to_beat_rps
from falcon_ray.runtime.job_package import own_version
from falcon_ray.runtime.ledger.client import LeaseTerms, LedgerClient
from falcon_ray.runtime.metrics import SEARCH_METRICS
from falcon_ray.runtime.parallelism import trials_at_once
from falcon_ray.runtime.progress import DisplayGroup, SearchDisplay
from falcon_ray.runtime.ray_metrics import RayMetrics
from falcon_ray.runtime.ray_session import Cluster
from falcon_ray.runtime.request_records import RequestFolder
from falcon_ray.runtime.search_knowledge import SearchKnowledge, search_knowledge
from falcon_ray.runtime.search_metrics import SearchMetrics
from falcon_ray.runtime.search_request import SearchRequest
from falcon_ray.runtime.search_setup import CheckedTarget, measurement_plan
from falcon_ray.runtime.search_spend import SearchSpend
from falcon_ray.runtime.searcher import MAX_FAILED_IN_A_ROW, FalconSearch
from falcon_ray.runtime.serve_backend import DELETE_TIMEOUT_S
from falcon_ray.runtime.serve_trial import TrialSetup, put_request
from falcon_ray.runtime.target import ModelTarget, Target
from falcon_ray.runtime.tune_trials import NAME_KEY, RATE_KEY, run_trials
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.space.spend import TrialLimits
from falcon_ray.space.workload import LoadPath

TUNE_NAME = ".tune"
CLEAN_UP_S = 10.0
FAILED = TrialStatus.FAILED


@dataclass
class _Running:
    """A trial that was started and has not ended."""

    number: int
    start_s: float


class SearchTrials:
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
        self._held = HeldTimes()
        self._display = DisplayGroup(display, SearchMetrics(RayMetrics(SEARCH_METRICS)), self._held)
        self._requests = RequestFolder.here(directory)
        self._ledger = LedgerClient(cluster_ledger)
        self._running: dict[str, _Running] = {}
        self._next_number = 1
        self._app_prefix = ""
        self._knowledge: SearchKnowledge | None = None
        self._readiness: ClusterReadiness | None = None
        self._spending: SearchSpend | None = None
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
            best=best,
            usd=spend(record).total_usd or 0.0,
            max_cost_usd=self._request.max_cost_usd,
        )
        renew_ledger(own_version())
        self._ledger.join(header.search_id)
        try:
            if serve_apps.start_serve(http=self._request.workload.path is LoadPath.HTTP):
                self._ledger.started_serve()
            serve_apps.delete_all(self._app_prefix, timeout_s=CLEAN_UP_S)
            self._run(header, record)
        finally:
            self._display.close()
            # A Ray of our own ends with the search, and all that is deployed with it.
            if not self._cluster.is_local:
                serve_apps.delete_all(self._app_prefix, timeout_s=CLEAN_UP_S)
                if self._ledger.leave(header.search_id):
                    serve_apps.end_serve()
                    self._ledger.ended_serve()

    def _run(self, header: SearchHeader, record: SearchRecord) -> None:
        setup = TrialSetup(
            target=self._deployed_target(header),
            request=put_request(EMULATED_REQUEST if header.emulated else self._checked.request),
            nodes=self._cluster.nodes,
            plan=measurement_plan(self._request),
            deploy_timeout_s=self._request.deploy_timeout_s,
            terms=LeaseTerms(
                search_id=header.search_id,
                exclusive=not self._request.colocate,
                provision_timeout_s=self._request.provision_timeout_s,
            ),
        )
        parallel = self._request.parallel or trials_at_once(
            header.space,
            self._cluster.possible_nodes,
            max_trials=self._request.max_trials,
            colocate=self._request.colocate,
        )
        readiness = self._readiness = ClusterReadiness(
            header.space, header.pricing, nodes=ledger_nodes, types=lambda: self._cluster.types
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
        spending = self._spending = self._books(record, setup)
        spending.check()
        searcher = FalconSearch(
            header.space,
            objective=header.objective,
            optimizer=optimizer,
            max_trials=self._request.max_trials,
            time_budget_s=self._request.time_budget_s,
            max_failed_in_a_row=MAX_FAILED_IN_A_ROW + parallel - 1,
            stop_early=self._request.stop_early,
            annotate=lambda configuration: self._told(configuration, header, searcher.observations),
            readiness=lambda: spending.narrowed(readiness.now()),
            may_start=spending.why_not,
            on_timing=self._display.suggested,
            on_suggestion=self._started,
            on_observation=self._ended,
        )
        # What the infrastructure broke before may work now, and is worth another trial.
        searcher.replay(each for each in record.observations if each.status is not FAILED)
        try:
            run_trials(
                searcher,
                setup,
                parallel=parallel,
                requests=self._requests,
                app_prefix=self._app_prefix,
                scratch=self._directory / TUNE_NAME,
                display=self._display,
                label_of=self._label_of,
            )
        except ClusterError:
            # Tune wraps what a listener raises, which says better what happened.
            if self._broken is not None:
                raise self._broken from None
            raise
        if searcher.is_broken:
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
            out_of_budget=searcher.was_refused,
        )

    def _books(self, record: SearchRecord, setup: TrialSetup) -> SearchSpend:
        request = self._request
        return SearchSpend(
            record,
            TrialLimits(
                longest_trial_s=setup.plan.longest_trial_s(
                    deploy_s=setup.deploy_timeout_s, remove_s=DELETE_TIMEOUT_S
                ),
                longest_start_s=request.provision_timeout_s if self._cluster.types else 0.0,
            ),
            max_cost_usd=request.max_cost_usd,
            confirm_rounds=request.confirm_rounds if request.confirm else 0,
        )

    def _deployed_target(self, header: SearchHeader) -> Target:
        target = self._checked.target
        if not header.emulated:
            return target
        return emulated_target(header, emulated_model(target), app_prefix=self._app_prefix)

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
        if self._spending is not None:
            self._spending.start(trial_id, suggestion.configuration)
        with self._keeping_errors():
            self._journal.trial_started(
                number, suggestion.configuration, why=suggestion.why, expected=suggestion.expected
            )
        self._display.trial_started(_label(number), suggestion.configuration, suggestion.why)

    def _label_of(self, trial_id: str) -> str | None:
        running = self._running.get(trial_id)
        return None if running is None else _label(running.number)

    def _told(
        self, configuration: Configuration, header: SearchHeader, tried: Sequence[Observation]
    ) -> dict[str, Value]:
        """What a trial is told beside its configuration: its name, and what it has to beat."""
        told: dict[str, Value] = {NAME_KEY: _name(self._next_number - 1)}
        to_beat = rate_to_beat_rps(
            tried, configuration, objective=header.objective, pricing=header.pricing
        )
        return told if to_beat is None else {**told, RATE_KEY: to_beat}

    def _ended(self, trial_id: str, observation: Observation) -> None:
        running = self._running.pop(trial_id)
        wall_s = time.monotonic() - running.start_s
        usd = None
        if self._spending is not None:
            held_s = self._held.held_s(_label(running.number))
            usd = self._spending.end(trial_id, observation, held_at_most_s=held_s)
        with self._keeping_errors():
            self._journal.trial_ended(running.number, observation, wall_s=wall_s, usd=usd)
        if self._readiness is not None:
            self._readiness.learn(observation)
        self._display.trial_ended(_label(running.number), observation, wall_s=wall_s, usd=usd)
        if self._knowledge is not None:
            self._knowledge.learn(observation)
        if observation.status is FAILED:
            # A process that was killed has deleted nothing, and the next trial needs its place.
            self._clean_up(f"{self._app_prefix}{_name(running.number)}")

    def _clean_up(self, app_name: str) -> None:
        """Remove what the process of a trial has left that was killed."""
        serve_apps.delete_one(app_name, timeout_s=CLEAN_UP_S)
        self._ledger.end_app(app_name)

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
                self._clean_up(confirmation_app(self._app_prefix, trial))
            return observation

        confirm(
            best,
            directory=self._directory,
            journal=self._journal,
            n_rounds=self._request.confirm_rounds,
            measure=measure,
            spending=self._spending,
            display=self._display,
        )


def _name(number: int) -> str:
    return f"trial-{number}"


def _label(number: int) -> str:
    return f"Trial {number}"
