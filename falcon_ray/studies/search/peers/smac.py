"""SMAC3's random forests, in its facade for hyperparameters.

Settings are SMAC's own for as many trials as a search here has, but the forest learns from every
trial instead of every eighth, without which 30 trials would be too few for it. SMAC goes on only
when each of its proposals has been told: one that is no candidate gets the score of the candidate
that stood in for it.
"""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from falcon_ray.optimizers.baselines.pool_search import PoolSearch
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective
from falcon_ray.studies.search.peers.ask_tell import AskTell, Codes, choices, peer_module, quiet

N_TRIALS = 30
"""What SMAC is told to plan for."""


class SmacFacade:
    """SMAC over codes; a `Peer`.

    Args:
        space: The n candidates.
        seed: Of the scenario.
    """

    def __init__(self, space: ConfigurationSpace, *, seed: int) -> None:
        configurations = peer_module("ConfigSpace")
        self._smac = peer_module("smac")
        self._history: Any = peer_module("smac.runhistory")
        self._parallel: Any = peer_module("joblib").parallel_config
        self._configuration = configurations.Configuration
        self._space = configurations.ConfigurationSpace(seed=seed)
        self._space.add(
            [
                configurations.Integer(each.name, (0, each.last))
                if each.ordinal
                else configurations.Categorical(each.name, each.labels)
                for each in choices(space)
            ]
        )
        directory = tempfile.mkdtemp(prefix="falcon_ray_smac_")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        facade = self._smac.HyperparameterOptimizationFacade
        scenario = self._smac.Scenario(
            self._space,
            deterministic=True,
            n_trials=N_TRIALS,
            seed=seed,
            output_directory=Path(directory),
        )
        initial = facade.get_initial_design(scenario)
        self.n_initial = len(initial.select_configurations())
        self._facade: Any = facade(
            scenario,
            lambda configuration, seed: 0.0,  # noqa: ARG005 - never called: trials are told
            config_selector=facade.get_config_selector(scenario, retrain_after=1),
            logging_level=False,
            overwrite=True,
        )
        self._asked: Any = None
        self._open: dict[tuple[object, ...], Any] = {}

    def ask(self) -> Codes | None:
        """See `Peer`."""
        try:
            # The forest would make a pool of threads for every prediction, which takes longest.
            with self._parallel(backend="sequential"):
                self._asked = self._facade.ask()
        except StopIteration:
            return None
        return dict(self._asked.config)

    def settle(self, codes: Codes) -> None:
        """See `Peer`; the proposal gets the score of what stands in for it."""
        self._open[_key(codes)] = self._asked

    def tell(self, codes: Codes, value: float) -> None:
        """See `Peer`."""
        info = self._open.pop(_key(codes), None)
        if info is None:
            told = self._configuration(self._space, values=codes)
            info = self._history.TrialInfo(told, seed=0)
        self._facade.tell(info, self._history.TrialValue(cost=-value), save=False)


@quiet()
def smac_search(
    space: ConfigurationSpace, objective: SearchObjective, usd_per_hour: FloatArray, *, seed: int
) -> PoolSearch:
    """A search by SMAC3."""
    peer = SmacFacade(space, seed=seed)
    chooser = AskTell(space, peer, n_initial=peer.n_initial)
    return PoolSearch(space, objective, usd_per_hour, seed=seed, chooser=chooser)


def _key(codes: Codes) -> tuple[object, ...]:
    return tuple(codes[name] for name in sorted(codes))
