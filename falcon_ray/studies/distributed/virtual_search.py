"""A search of many trials at once on a fake clock: the real searcher and ledger, invented trials.

Trials ask, wait, hold, end or fall silent as they would on a cluster. Their durations and what
they measure are invented by a seed; nothing is deployed. Books of its own tell what was granted.
"""

import heapq
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from falcon_ray.runtime.ledger.admission import LEASE_S, Admission
from falcon_ray.runtime.ledger.contract import Ask, AskState, LedgerNode
from falcon_ray.runtime.searcher import OBSERVATION_KEY, FalconSearch
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand
from falcon_ray.space.observation import Measurement, Observation, TrialStatus

HEARTBEAT_S = LEASE_S / 3
STUCK_S = 600.0
"""Fake seconds in which nobody holds anything while some wait: a deadlock."""
DURATIONS_S = (30.0, 150.0)
SILENT_SHARE = 0.01
"""Of the trials die without giving anything back."""


@dataclass(kw_only=True)
class SearchOutcome:
    """What became of a virtual search.

    Attributes:
        suggestion_s: Wall seconds of every suggestion, in order.
        tick_s: Wall seconds of every tick of the ledger.
        trial_s: Fake seconds that trials held their nodes.
        n_suggested: Trials that were suggested.
        ended: How often each trial ended, as the searcher was told.
        granted: How often each was granted.
        n_refused: Trials that no node could hold.
        n_silent: Trials that died without giving back.
        n_overfull: How often a node gave more than it has.
        most_at_once: Trials that were suggested and had not ended, at most.
        most_holding: Trials that held something at once, at most.
        is_stuck: Whether trials waited for ever.
        end_s: Fake seconds of the whole search.
        n_left: Leases that the ledger had at the end.
    """

    suggestion_s: list[float] = field(default_factory=list[float])
    tick_s: list[float] = field(default_factory=list[float])
    trial_s: list[float] = field(default_factory=list[float])
    n_suggested: int = 0
    ended: Counter[str] = field(default_factory=Counter[str])
    granted: Counter[str] = field(default_factory=Counter[str])
    n_refused: int = 0
    n_silent: int = 0
    n_overfull: int = 0
    most_at_once: int = 0
    most_holding: int = 0
    is_stuck: bool = False
    end_s: float = 0.0
    n_left: int = 0


class VirtualSearch:
    """One search on a virtual cluster.

    Args:
        space: What is searched.
        nodes: By node id; they stay.
        parallel: Trials at once.
        trials: How many shall teach something.
        seed: Of the search and of what is invented.
        optimizer: Name of the searcher's.
        admission: The ledger's machine; a new one when None.
        wall_clock: Seconds, by which suggestions and ticks are timed.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        nodes: Mapping[str, NodeShape],
        *,
        parallel: int,
        trials: int,
        seed: int = 0,
        optimizer: str = "mcts",
        admission: Admission | None = None,
        wall_clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._nodes = nodes
        self._parallel = parallel
        self._wall_clock = wall_clock
        self._now_s = 0.0
        self._rng = np.random.default_rng([seed, 1])
        self._rates = invented_rates(space, seed)
        self._searcher = FalconSearch(
            space,
            optimizer=optimizer,
            seed=seed,
            max_trials=trials,
            clock=lambda: self._now_s,
        )
        self._admission = admission or Admission()
        self._admission.nodes_changed(
            [LedgerNode(node_id=name, shape=shape) for name, shape in nodes.items()], [], 0.0
        )
        self._live: dict[str, Configuration] = {}
        self._holding: dict[str, tuple[str, ...]] = {}
        self._silent: set[str] = set()
        self._ends: list[tuple[float, str]] = []
        self._next_beat_s = HEARTBEAT_S
        self._progress_s = 0.0
        self._finished = False
        self.outcome = SearchOutcome()

    def run(self) -> SearchOutcome:
        """Run until every trial has ended and nothing is held, or until nothing goes on."""
        self._fill()
        while self._live or self._admission.known():
            self._grant()
            self._advance()
            self._fill()
            if not self._holding and self._now_s - self._progress_s >= STUCK_S:
                self.outcome.is_stuck = True
                break
        self.outcome.end_s = self._now_s
        self.outcome.n_left = len(self._admission.known())
        return self.outcome

    def _fill(self) -> None:
        """Start trials until so many are there, or the searcher has none."""
        while len(self._live) < self._parallel and not self._finished:
            trial_id = f"trial{self.outcome.n_suggested}"
            start_s = self._wall_clock()
            values = self._searcher.suggest(trial_id)
            wall_s = self._wall_clock() - start_s
            if not isinstance(values, dict):
                self._finished = values == FalconSearch.FINISHED
                return
            self.outcome.suggestion_s.append(wall_s)
            self.outcome.n_suggested += 1
            self._start(trial_id, Configuration(values))

    def _start(self, trial_id: str, configuration: Configuration) -> None:
        self._live[trial_id] = configuration
        self.outcome.most_at_once = max(self.outcome.most_at_once, len(self._live))
        ask = Ask(lease_id=trial_id, search_id="search", demand=Demand.of(configuration))
        answer = self._admission.ask(ask, self._now_s)
        if answer.state is AskState.INFEASIBLE:
            self.outcome.n_refused += 1
            self._end(trial_id, TrialStatus.INFEASIBLE, reason=answer.reason)

    def _grant(self) -> None:
        start_s = self._wall_clock()
        changes = self._admission.tick(self._now_s)
        self.outcome.tick_s.append(self._wall_clock() - start_s)
        self._silent -= set(changes.expired)
        for trial_id in changes.granted:
            self.outcome.granted[trial_id] += 1
            self._holding[trial_id] = self._admission.answer(trial_id).node_ids
            duration_s = float(self._rng.uniform(*DURATIONS_S))
            self.outcome.trial_s.append(duration_s)
            heapq.heappush(self._ends, (self._now_s + duration_s, trial_id))
        if changes.granted:
            self._progress_s = self._now_s
            self.outcome.most_holding = max(self.outcome.most_holding, len(self._holding))
            self.outcome.n_overfull += n_overfull(
                self._nodes, [(self._live[each], on) for each, on in self._holding.items()]
            )

    def _advance(self) -> None:
        """Go to what happens next: a trial ends, or all give a sign of life."""
        if self._ends and self._ends[0][0] <= self._next_beat_s:
            self._now_s, trial_id = heapq.heappop(self._ends)
            self._progress_s = self._now_s
            del self._holding[trial_id]
            if self._rng.random() < SILENT_SHARE:
                self.outcome.n_silent += 1
                self._silent.add(trial_id)
                self._end(trial_id, TrialStatus.FAILED, reason="the trial's process died")
            else:
                self._end(trial_id, TrialStatus.MEASURED)
            return
        self._now_s = self._next_beat_s
        self._next_beat_s += HEARTBEAT_S
        for trial_id in self._live:
            self._admission.alive(trial_id, self._now_s)

    def _end(self, trial_id: str, status: TrialStatus, *, reason: str = "") -> None:
        configuration = self._live.pop(trial_id)
        if trial_id not in self._silent:
            self._admission.give_back(trial_id, self._now_s)
        measurement = None
        if status is TrialStatus.MEASURED:
            row = self._searcher.space.position(configuration)
            assert row is not None, "it was suggested from this space"
            noise = float(self._rng.normal(0, 0.03))
            measurement = Measurement(saturation_rps=float(self._rates[row]) * math.exp(noise))
        observation = Observation(
            configuration=configuration, status=status, measurement=measurement, reason=reason
        )
        result = {OBSERVATION_KEY: json.dumps(observation.to_json())}
        self._searcher.on_trial_complete(trial_id=trial_id, result=result)
        self.outcome.ended[trial_id] += 1


def n_overfull(
    nodes: Mapping[str, NodeShape], held: Sequence[tuple[Configuration, Sequence[str]]]
) -> int:
    """How many nodes give more cores or GPUs than they have, or GPUs of another type."""
    cpus, gpus, wrong = Counter[str](), Counter[str](), set[str]()
    for configuration, node_ids in held:
        demand = Demand.of(configuration)
        for node_id in node_ids:
            # In hundredths, of which all demands here are whole numbers.
            cpus[node_id] += round(100 * demand.cpu_cores)
            gpus[node_id] += round(100 * demand.n_gpus)
            if demand.gpu_type not in (None, nodes[node_id].gpu_type):
                wrong.add(node_id)
    full = {name for name, n in cpus.items() if n > 100 * nodes[name].cpus}
    full |= {name for name, n in gpus.items() if n > 100 * nodes[name].n_gpus}
    return len(full | wrong)


def invented_rates(space: ConfigurationSpace, seed: int) -> FloatArray:
    """Requests per second of every candidate, shape (n,): a random walk along each dimension."""
    log_rate: NDArray[np.float64] = np.full(len(space), math.log(100.0))
    for column, dimension in enumerate(space.dimensions):
        steps = np.random.default_rng([seed, 2, column]).normal(0, 0.3, len(dimension.values))
        log_rate += np.cumsum(steps)[space.codes[:, column]]
    return np.exp(log_rate)
