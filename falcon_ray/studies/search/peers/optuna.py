"""Optuna's samplers: the tree-structured Parzen estimator and the Gaussian process.

Settings are Optuna's own, ten random trials at the start included. Ordinal values are integers
from 0, categorical ones are labels.
"""

from typing import Any

from falcon_ray.optimizers.baselines.pool_search import PoolSearch
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective
from falcon_ray.studies.search.peers.ask_tell import AskTell, Codes, choices, peer_module, quiet

N_INITIAL = 10
"""Random trials before either sampler models anything: Optuna's default."""


class OptunaStudy:
    """A study of codes; a `Peer`.

    Args:
        space: The n candidates.
        sampler: Name of a class in `optuna.samplers`.
        seed: Of the sampler.
    """

    def __init__(self, space: ConfigurationSpace, *, sampler: str, seed: int) -> None:
        self._optuna = peer_module("optuna")
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        distributions = self._optuna.distributions
        self._distributions = {
            each.name: distributions.IntDistribution(0, each.last)
            if each.ordinal
            else distributions.CategoricalDistribution(each.labels)
            for each in choices(space)
        }
        made = getattr(self._optuna.samplers, sampler)(seed=seed, n_startup_trials=N_INITIAL)
        self._study: Any = self._optuna.create_study(direction="maximize", sampler=made)
        self._asked: Any = None
        self._open: dict[tuple[object, ...], Any] = {}

    def ask(self) -> Codes | None:
        """See `Peer`."""
        self._asked = self._study.ask(self._distributions)
        return dict(self._asked.params)

    def settle(self, codes: Codes) -> None:
        """See `Peer`; a proposal that is not tried has failed."""
        if self._asked.params == codes:
            self._open[tuple(codes.values())] = self._asked
        else:
            self._study.tell(self._asked, state=self._optuna.trial.TrialState.FAIL)

    def tell(self, codes: Codes, value: float) -> None:
        """See `Peer`."""
        asked = self._open.pop(tuple(codes.values()), None)
        if asked is not None:
            self._study.tell(asked, value)
            return
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params=codes, distributions=self._distributions, value=value
            )
        )


@quiet()
def optuna_search(
    space: ConfigurationSpace,
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    seed: int,
    sampler: str,
) -> PoolSearch:
    """A search by one of Optuna's samplers, e.g. "TPESampler" or "GPSampler"."""
    peer = OptunaStudy(space, sampler=sampler, seed=seed)
    chooser = AskTell(space, peer, n_initial=N_INITIAL)
    return PoolSearch(space, objective, usd_per_hour, seed=seed, chooser=chooser)
