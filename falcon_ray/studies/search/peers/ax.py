"""Ax, whose default is a Gaussian process of BoTorch with expected improvement.

Settings are Ax's own: the middle of the space, four quasi-random trials, then the model.
"""

import logging
from typing import Any

from falcon_ray.optimizers.baselines.pool_search import PoolSearch
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective
from falcon_ray.studies.search.peers.ask_tell import AskTell, Codes, choices, peer_module, quiet

N_INITIAL = 5
_METRIC = "log_score"


class AxClient:
    """Ax over codes; a `Peer`.

    Args:
        space: The n candidates.
        seed: Of the initial design and of the model.
    """

    def __init__(self, space: ConfigurationSpace, *, seed: int) -> None:
        api = peer_module("ax.api.client")
        configs = peer_module("ax.api.configs")
        self._seeded: Any = peer_module("botorch.utils.sampling").manual_seed
        peer_module("ax.utils.common.logger").set_stderr_log_level(logging.CRITICAL)
        self._seed = seed
        self._client: Any = api.Client(random_seed=seed)
        self._client.configure_experiment(
            [
                configs.RangeParameterConfig(
                    name=each.name, parameter_type="int", bounds=(0, each.last)
                )
                if each.ordinal
                else configs.ChoiceParameterConfig(
                    name=each.name,
                    parameter_type="str",
                    values=each.labels,
                    is_ordered=False,
                )
                for each in choices(space)
            ]
        )
        self._client.configure_optimization(objective=_METRIC)
        self._client.configure_generation_strategy(
            initialization_budget=N_INITIAL, initialization_random_seed=seed
        )
        self._asked: tuple[int, Codes] = (0, {})
        self._open: dict[tuple[object, ...], int] = {}
        self._n_asked = 0

    def ask(self) -> Codes | None:
        """See `Peer`."""
        with self._seeded(1000 * self._seed + self._n_asked):
            proposed = self._client.get_next_trials(max_trials=1)
        self._n_asked += 1
        if not proposed:
            return None
        index, parameters = next(iter(proposed.items()))
        self._asked = index, dict(parameters)
        return dict(parameters)

    def settle(self, codes: Codes) -> None:
        """See `Peer`; a proposal that is not tried is abandoned."""
        index, proposed = self._asked
        if proposed == codes:
            self._open[_key(codes)] = index
        else:
            self._client.mark_trial_abandoned(index)

    def tell(self, codes: Codes, value: float) -> None:
        """See `Peer`."""
        index = self._open.pop(_key(codes), None)
        if index is None:
            index = self._client.attach_trial(codes)
        self._client.complete_trial(index, raw_data={_METRIC: value})


@quiet()
def ax_search(
    space: ConfigurationSpace, objective: SearchObjective, usd_per_hour: FloatArray, *, seed: int
) -> PoolSearch:
    """A search by Ax."""
    chooser = AskTell(space, AxClient(space, seed=seed), n_initial=N_INITIAL)
    return PoolSearch(space, objective, usd_per_hour, seed=seed, chooser=chooser)


def _key(codes: Codes) -> tuple[object, ...]:
    return tuple(codes[name] for name in sorted(codes))
