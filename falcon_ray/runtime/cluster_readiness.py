"""Which GPU types could start a trial now, and what it costs to bring up the others.

It puts together what the cluster has, what its autoscaler can add and what instances cost. It does
not know what a suggestion makes of that.
"""

import time
from collections.abc import Callable, Sequence

from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.runtime.ledger.contract import LedgerNode, NodeType
from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.cost import Pricing
from falcon_ray.space.observation import Observation, TrialStatus

START_UP_S = 180.0
"""Of a node, until one was seen to start. An assumption: minutes, as virtual machines take."""
FORGIVEN_AFTER_S = 900.0
"""A type that did not come is tried again after so long."""


class ClusterReadiness:
    """What is ready for the candidates of one space.

    Args:
        space: The candidates.
        pricing: What instances cost.
        nodes: Those that are there.
        types: Those that can be added.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        pricing: Pricing,
        *,
        nodes: Callable[[], Sequence[LedgerNode]],
        types: Callable[[], Sequence[NodeType]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._space = space
        self._pricing = pricing
        self._nodes = nodes
        self._types = types
        self._clock = clock
        self._has_types = any(each.name == "gpu_type" for each in space.dimensions)
        self._start_up_s: dict[str, float] = {}
        self._trial_s: list[float] = []
        self._refused_s: dict[str, float] = {}

    def now(self) -> Readiness | None:
        """What holds of every candidate; None where all run on the same kind of node."""
        if not self._has_types:
            return None
        there = self._nodes()
        up = {each.shape.gpu_type for each in there if each.shape.gpu_type is not None}
        with_room = {
            each.shape.gpu_type
            for each in there
            if each.shape.gpu_type is not None and each.used_gpus < each.shape.n_gpus
        }
        start_cost = {
            gpu_type: self._start_cost(gpu_type)
            for each in self._types()
            if (gpu_type := each.shape.gpu_type) is not None and not self._was_refused(gpu_type)
        }
        start_cost |= dict.fromkeys(up, 0.0)
        return Readiness.by_gpu_type(self._space, start_cost, ready=with_room)

    def learn(self, observation: Observation) -> None:
        """How long nodes took to come for a trial, or that they did not come."""
        times, gpu_type = observation.times, observation.configuration.text("gpu_type", "")
        if observation.never_began:
            self._refused_s[gpu_type] = self._clock()
        elif times.provision_s > 0:
            # A trial may wait for nodes one after the other, or for one that others take.
            shortest_s = self._start_up_s.get(gpu_type, times.provision_s)
            self._start_up_s[gpu_type] = min(shortest_s, times.provision_s)
        if observation.status is TrialStatus.MEASURED:
            self._trial_s.append(times.deploy_s + times.warm_up_s + times.measure_s)

    def _start_cost(self, gpu_type: str) -> float:
        """Of a node, in USD per hour of a trial: what it costs while it starts, over a trial."""
        prices = [
            each.usd_per_hour
            for each in self._pricing.instances
            if gpu_type in (each.gpu_type, each.accelerator_type)
        ]
        if not prices:
            return 0.0
        start_up_s = self._start_up_s.get(gpu_type, START_UP_S)
        trial_s = sum(self._trial_s) / len(self._trial_s) if self._trial_s else START_UP_S
        return min(prices) * start_up_s / trial_s

    def _was_refused(self, gpu_type: str) -> bool:
        refused_s = self._refused_s.get(gpu_type)
        return refused_s is not None and self._clock() - refused_s < FORGIVEN_AFTER_S
