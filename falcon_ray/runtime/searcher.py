"""Falcon's optimizers as a Ray Tune searcher: a thin shell, so that Tune is the executor.

The searcher translates between Tune's calls and the optimizer's two verbs. It does not decide
what to try, nor what a result is worth.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.search import Searcher

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.mcts import Parallel
from falcon_ray.optimizers.optimizer import ForesightedOptimizer, Optimizer, Suggestion
from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.optimizers.registry import make_optimizer
from falcon_ray.optimizers.stopping import Outlook, why_stop
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.dimension import Value
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus

logger = logging.getLogger(__name__)

OBSERVATION_KEY = "observation"
"""A result with this key carries a whole observation: the text of `Observation.to_json`."""

MAX_FAILED_IN_A_ROW = 3
"""After so many trials in a row that the infrastructure broke, going on helps nobody."""

_MEASUREMENT_NAMES = frozenset(each.name for each in fields(Measurement))


def _no_annotation(configuration: Configuration) -> Mapping[str, Value]:  # noqa: ARG001
    return {}


def _nothing_known() -> Readiness | None:
    return None


def _may_start(configuration: Configuration) -> str:  # noqa: ARG001
    return ""


class FalconSearch(Searcher):
    """A `ray.tune` searcher that proposes serving configurations.

    With your own `tune.Tuner`, let the trainable report the metrics that the objective needs,
    under the names that `Measurement` gives them (`saturation_rps`; with an SLO also
    `capacity_rps` and `floor_latency_ms`, for a single stream also `single_stream_rps`)::

        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=FalconSearch({"batch_size": [1, 2, 4, 8], "cpu_cores": [1, 2]}),
                num_samples=6,
            ),
        )

    Args:
        space: The space, or values by dimension name.
        constraints: Constraint expressions; only with values by dimension name.
        objective: What counts as better; saturation throughput per dollar when None.
        usd_per_hour: Price of each candidate, shape (n,) in the order of `space.candidates`;
            equal prices when None.
        optimizer: Name of a registered optimizer, or a ready one.
        prior: What is expected of the candidates; not with a ready optimizer.
        parallel: How trials that still run count: "believer" for batches, "thompson" for workers
            that come and go; not with a ready optimizer.
        seed: Makes the suggestions repeatable.
        max_trials: Trials to measure, past observations included; None leaves it to Tune.
        time_budget_s: Seconds from the first suggestion after which none follows.
        max_failed_in_a_row: Trials in a row that the infrastructure broke after which none follows;
            with several at once, one node takes several with it. As many whose nodes did not come
            end a search as well, which is no failure where something was measured.
        stop_early: Whether to end once one more trial is expected to bring next to nothing.
        annotate: Values that a trial of this configuration is told beside its dimensions, asked
            for with each suggestion and merged into what `suggest` returns, so that they arrive
            in the trainable's `config`; by default nothing. Names of dimensions are refused.
        readiness: What could start now, asked before each suggestion; by default nothing is known.
        may_start: Why a trial of a configuration may not start, asked of each suggestion; empty
            where it may. One that may not is taken back, and none is made before another trial
            has ended; with none that runs, none follows.
        on_timing: Told how many seconds each suggestion took that became a trial.
        on_suggestion: Told about each suggestion before its trial starts.
        on_observation: Told about each observation before the optimizer learns it.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        space: ConfigurationSpace | Mapping[str, Iterable[Value]],
        *,
        constraints: Iterable[str] = (),
        objective: Objective | None = None,
        usd_per_hour: FloatArray | None = None,
        optimizer: str | Optimizer = "mcts",
        prior: ExpertMixture | None = None,
        parallel: str = "believer",
        seed: int = 0,
        max_trials: int | None = None,
        time_budget_s: float | None = None,
        max_failed_in_a_row: int = MAX_FAILED_IN_A_ROW,
        stop_early: bool = False,
        annotate: Callable[[Configuration], Mapping[str, Value]] = _no_annotation,
        readiness: Callable[[], Readiness | None] = _nothing_known,
        may_start: Callable[[Configuration], str] = _may_start,
        on_timing: Callable[[float], None] | None = None,
        on_suggestion: Callable[[str, Suggestion], None] | None = None,
        on_observation: Callable[[str, Observation], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objective = objective or Objective()
        # No metric: the objective scores, and an infeasible trial reports none.
        super().__init__()
        if not isinstance(space, ConfigurationSpace):
            space = ConfigurationSpace.of(space, constraints)
        self.space = space
        if prior is not None and not isinstance(optimizer, str):
            raise InputError("a ready optimizer has its prior; give FalconSearch one or the other")
        chosen = _parallel(parallel)
        prices = np.ones(len(space)) if usd_per_hour is None else usd_per_hour
        self._optimizer = (
            make_optimizer(
                optimizer,
                space,
                self.objective,
                prices,
                seed=seed,
                prior=prior,
                parallel=chosen,
            )
            if isinstance(optimizer, str)
            else optimizer
        )
        self._max_trials = max_trials
        self._time_budget_s = time_budget_s
        self._max_failed_in_a_row = max_failed_in_a_row
        self._stop_early = stop_early
        self._annotate = annotate
        self._readiness = readiness
        self._may_start = may_start
        self._on_timing = on_timing
        self._on_suggestion = on_suggestion
        self._on_observation = on_observation
        self._clock = clock
        self._start_s: float | None = None
        self._observations: list[Observation] = []
        self._pending: dict[str, Configuration] = {}
        self._failed_in_a_row = self._never_began_in_a_row = 0
        self.end_reason = ""
        self.stopped_early = False
        self.was_refused = False
        self._waits_for_an_end = False

    @property
    def observations(self) -> tuple[Observation, ...]:
        """Everything observed so far, in order."""
        return tuple(self._observations)

    @property
    def failed_in_a_row(self) -> int:
        """How many of the latest trials the infrastructure broke, one after the other.

        Those of a replay do not count: a search is resumed once that is mended. Nor do those
        whose nodes did not come: there was nothing to break.
        """
        return self._failed_in_a_row

    @property
    def is_broken(self) -> bool:
        """Whether so many trials in a row were broken that going on helps nobody.

        Or, with nothing measured, so many had no nodes.
        """
        if self.failed_in_a_row >= self._max_failed_in_a_row:
            return True
        return self._nodes_do_not_come and not self._has_measured

    @property
    def outlook(self) -> Outlook | None:
        """What one more trial is expected to bring; None where the optimizer cannot say."""
        if isinstance(self._optimizer, ForesightedOptimizer):
            return self._optimizer.outlook()
        return None

    def replay(self, observations: Iterable[Observation]) -> None:
        """Learn past observations, without telling `on_observation`."""
        for observation in observations:
            self._observations.append(observation)
            if not observation.never_began:
                self._optimizer.observe(observation)

    def suggest(self, trial_id: str) -> dict[str, Value] | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next configuration; `FINISHED` when there is nothing left to do.

        None, which makes Tune ask again later, only while a trial is running: with nothing
        running Tune would ask for ever.
        """
        if self._start_s is None:
            self._start_s = self._clock()
        if reason := self._why_stop():
            if self._pending:
                return None
            self.end_reason = reason
            return Searcher.FINISHED
        if self._waits_for_an_end:
            return None
        before_s = self._clock()
        suggestion = self._optimizer.suggest(self._readiness())
        took_s = self._clock() - before_s
        reason, refused = "every configuration was tried", False
        if suggestion is not None and (reason := self._may_start(suggestion.configuration)):
            self._optimizer.withdraw(suggestion.configuration)
            suggestion, refused = None, True
        if suggestion is None:
            if self._pending:
                self._waits_for_an_end = True
                return None
            self.end_reason = reason
            self.was_refused = refused
            return Searcher.FINISHED
        if self._on_timing is not None:
            self._on_timing(took_s)
        self._pending[trial_id] = suggestion.configuration
        if self._on_suggestion is not None:
            self._on_suggestion(trial_id, suggestion)
        return self._annotated(suggestion.configuration)

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,
    ) -> None:
        """Learn how a trial ended; a crashed one arrives without a result."""
        configuration = self._pending.pop(trial_id, None)
        if configuration is None:
            return
        self._waits_for_an_end = False
        if error or not result:
            observation = Observation(
                configuration=configuration,
                status=TrialStatus.FAILED,
                reason="the trial's process died",
            )
        else:
            observation = _observation(configuration, result)
        if self._on_observation is not None:
            self._on_observation(trial_id, observation)
        if observation.never_began:
            self._optimizer.withdraw(configuration)
        self._count(observation)
        self.replay([observation])

    @property
    def _nodes_do_not_come(self) -> bool:
        return self._never_began_in_a_row >= self._max_failed_in_a_row

    @property
    def _has_measured(self) -> bool:
        return any(each.status is TrialStatus.MEASURED for each in self._observations)

    def _count(self, observation: Observation) -> None:
        if observation.never_began:
            self._never_began_in_a_row += 1
            return
        failed = observation.status is TrialStatus.FAILED
        self._never_began_in_a_row = 0
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the listeners: Tune pickles its set-up, and they belong to this process."""
        ours = {
            "_on_timing": None,
            "_on_suggestion": None,
            "_on_observation": None,
            "_annotate": _no_annotation,
            "_readiness": _nothing_known,
            "_may_start": _may_start,
        }
        return self.__dict__ | ours

    def save(self, checkpoint_path: str) -> None:
        """Write the observations as JSON; they are the whole state."""
        records = [observation.to_json() for observation in self._observations]
        Path(checkpoint_path).write_text(json.dumps(records), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Replay what `save` wrote."""
        records = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        self.replay(Observation.from_json(record) for record in records)

    def _annotated(self, configuration: Configuration) -> dict[str, Value]:
        values, said = dict(configuration), self._annotate(configuration)
        if taken := sorted(values.keys() & said.keys()):
            raise InputError(f"annotate must not give {taken[0]!r}, which is a dimension")
        return {**values, **said}

    def _why_stop(self) -> str:
        counted = sum(each.status is not TrialStatus.FAILED for each in self._observations)
        if self._max_trials is not None and counted + len(self._pending) >= self._max_trials:
            return f"all {self._max_trials} trials are done"
        if self.failed_in_a_row >= self._max_failed_in_a_row:
            return f"{self.failed_in_a_row} trials in a row failed for reasons of infrastructure"
        if self._nodes_do_not_come:
            n = self._never_began_in_a_row
            return (
                f"the nodes for what is left cannot be had now: {n} trials in a row waited in vain"
            )
        start_s = self._clock() if self._start_s is None else self._start_s
        if self._time_budget_s is not None and self._clock() - start_s >= self._time_budget_s:
            return f"the time budget of {self._time_budget_s:g} s is used up"
        outlook = self.outlook if self._stop_early and not self._pending else None
        reason = "" if outlook is None else why_stop(outlook)
        self.stopped_early = bool(reason)
        return reason


def _parallel(name: str) -> Parallel:
    try:
        return Parallel(name)
    except ValueError:
        known = ", ".join(each.value for each in Parallel)
        raise InputError(f"parallel must be one of {known}, got {name!r}") from None


def _observation(configuration: Configuration, result: Mapping[str, Any]) -> Observation:
    if OBSERVATION_KEY in result:
        return Observation.from_json(json.loads(result[OBSERVATION_KEY]))
    reported = {name: result[name] for name in _MEASUREMENT_NAMES if name in result}
    if "saturation_rps" not in reported:
        raise InputError(
            "the trainable reported no saturation_rps; report the objective's metrics, e.g. "
            "tune.report({'saturation_rps': 120.0})"
        )
    return Observation(
        configuration=configuration,
        status=TrialStatus.MEASURED,
        measurement=Measurement(**reported),
    )
