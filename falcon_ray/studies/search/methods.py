"""The methods that are compared: ours, ours with a part taken away, and what people use today.

It knows how each is made. It does not know on what they are tried.
"""

from collections.abc import Callable, Sequence
from functools import partial

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.baselines.gp_ei import gp_ei
from falcon_ray.optimizers.baselines.popularity import popularity
from falcon_ray.optimizers.baselines.rgpe import RankingSources, rgpe
from falcon_ray.optimizers.baselines.transfer_gp import known_scores, transfer_gp
from falcon_ray.optimizers.optimizer import Optimizer
from falcon_ray.optimizers.registry import make_optimizer
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.studies.search.ablation import only, permuted
from falcon_ray.studies.search.comparison import Maker, Method
from falcon_ray.studies.search.peers.ask_tell import is_installed
from falcon_ray.studies.search.peers.ax import ax_search
from falcon_ray.studies.search.peers.optuna import optuna_search
from falcon_ray.studies.search.peers.smac import smac_search

OURS = "falcon"
TREE_OFF = "falcon (tree off)"
PRIOR_OFF = "falcon (prior off)"
PERMUTED = "falcon (permuted prior)"
POPULARITY = "popularity"
TRANSFER_PEERS = (POPULARITY, "transfer_gp", "rgpe")
"""They learn from other families, as ours does."""
BLACK_BOX_PEERS = ("optuna_tpe", "optuna_gp", "smac", "ax")

N_SEEDS = 20
N_GP_SEEDS = 5
"""Of those that fit a Gaussian process in every trial."""
N_SLOW_SEEDS = 1
"""Of the peers that take a second or more for a suggestion."""

_Prior = Callable[[ReplayTask, int], ExpertMixture | None]


def methods(
    names: Sequence[str] = (),
    *,
    experts: Sequence[str] = (),
    n_seeds: int | None = None,
    permute_prior: bool = False,
) -> list[Method]:
    """The methods of these names, whether what they need is installed or not.

    Args:
        names: Keys of the table; all when empty.
        experts: Names of experts, each of which becomes a method that has it alone.
        n_seeds: Of every method but popularity, which has no luck; by default those in the table.
        permute_prior: Whether ours, and its ablations that have a prior, get a permuted one.

    Raises:
        InputError: There is no method of a name.
    """
    table = _ours(permute_prior=permute_prior, experts=experts) + _others()
    known = {each.name: each for each in table}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"there is no method {unknown[0]!r}; known are {'; '.join(known)}")
    chosen = [known[name] for name in names or known]
    if n_seeds is None:
        return chosen
    return [
        Method(
            name=each.name,
            prepare=each.prepare,
            n_seeds=1 if each.name == POPULARITY else n_seeds,
            package=each.package,
            learns=each.learns,
        )
        for each in chosen
    ]


def installed(chosen: Sequence[Method]) -> tuple[list[Method], str]:
    """Those that can run, and which cannot and why, in one line, or an empty one."""
    here = [each for each in chosen if not each.package or is_installed(each.package)]
    left_out = [each for each in chosen if each not in here]
    if not left_out:
        return here, ""
    said = ", ".join(f"{each.name} ({each.package})" for each in left_out)
    return here, f"not installed and left out: {said}; run scripts/environment bench for them"


def expert_names(tasks: Sequence[ReplayTask]) -> tuple[str, ...]:
    """Every expert that all priors have, in the order of the first task's."""
    priors = [task.prior for task in tasks]
    if not priors or any(prior is None for prior in priors):
        return ()
    named = [[each.name for each in prior.experts] for prior in priors if prior is not None]
    return tuple(name for name in named[0] if all(name in names for names in named))


def only_expert(name: str) -> str:
    """Name of the method that has one expert alone."""
    return f"falcon (expert {name} only)"


def _ours(*, permute_prior: bool, experts: Sequence[str]) -> list[Method]:
    given: _Prior = _permuted_prior if permute_prior else _given_prior
    return [
        _own(OURS, "mcts", given),
        _own(TREE_OFF, "bayesian", given),
        _own(PRIOR_OFF, "mcts", _no_prior),
        _own(PERMUTED, "mcts", _permuted_prior, n_seeds=N_SEEDS),
        *(_own(only_expert(name), "mcts", partial(_one_expert, name, given)) for name in experts),
    ]


def _others() -> list[Method]:
    return [
        Method(
            name="random",
            prepare=partial(_registered, "random", _no_prior),
            n_seeds=N_SEEDS,
            learns=False,
        ),
        Method(name=POPULARITY, prepare=_popularity),
        Method(name="gp_ei", prepare=_gp_ei, n_seeds=N_GP_SEEDS, learns=False),
        Method(name="transfer_gp", prepare=_transfer_gp, n_seeds=N_GP_SEEDS),
        Method(name="rgpe", prepare=_rgpe, n_seeds=N_GP_SEEDS),
        Method(
            name="optuna_tpe",
            prepare=partial(_optuna, "TPESampler"),
            n_seeds=N_SEEDS,
            package="optuna",
            learns=False,
        ),
        Method(
            name="optuna_gp",
            prepare=partial(_optuna, "GPSampler"),
            n_seeds=N_GP_SEEDS,
            package="optuna",
            learns=False,
        ),
        Method(name="smac", prepare=_smac, n_seeds=N_SLOW_SEEDS, package="smac", learns=False),
        Method(name="ax", prepare=_ax, n_seeds=N_SLOW_SEEDS, package="ax", learns=False),
    ]


def _own(name: str, optimizer: str, prior: _Prior, *, n_seeds: int = 1) -> Method:
    return Method(
        name=name,
        prepare=partial(_registered, optimizer, prior),
        n_seeds=n_seeds,
        learns=False,
    )


def _given_prior(task: ReplayTask, seed: int) -> ExpertMixture | None:
    del seed
    return task.prior


def _no_prior(task: ReplayTask, seed: int) -> ExpertMixture | None:
    del task, seed


def _permuted_prior(task: ReplayTask, seed: int) -> ExpertMixture | None:
    return None if task.prior is None else permuted(task.prior, seed=seed)


def _one_expert(name: str, given: _Prior, task: ReplayTask, seed: int) -> ExpertMixture | None:
    prior = given(task, seed)
    return None if prior is None else only(prior, name)


def _registered(name: str, prior: _Prior, task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    del sources  # what they teach is in the prior

    def make(seed: int) -> Optimizer:
        return make_optimizer(
            name,
            task.space,
            task.objective,
            task.usd_per_hour,
            seed=seed,
            prior=prior(task, seed),
        )

    return make


def _popularity(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    def make(seed: int) -> Optimizer:
        del seed
        return popularity(task.space, task.objective, task.usd_per_hour, sources=sources)

    return make


def _gp_ei(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    del sources

    def make(seed: int) -> Optimizer:
        return gp_ei(task.space, task.objective, task.usd_per_hour, seed=seed)

    return make


def _transfer_gp(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    if not sources:
        return _gp_ei(task, sources)
    known = known_scores(task.space, sources)

    def make(seed: int) -> Optimizer:
        return transfer_gp(task.space, task.objective, task.usd_per_hour, seed=seed, known=known)

    return make


def _rgpe(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    if not sources:
        return _gp_ei(task, sources)
    fitted = RankingSources.fitted(task.space, sources)

    def make(seed: int) -> Optimizer:
        return rgpe(task.space, task.objective, task.usd_per_hour, seed=seed, sources=fitted)

    return make


def _optuna(sampler: str, task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    del sources

    def make(seed: int) -> Optimizer:
        return optuna_search(
            task.space, task.objective, task.usd_per_hour, seed=seed, sampler=sampler
        )

    return make


def _smac(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    del sources

    def make(seed: int) -> Optimizer:
        return smac_search(task.space, task.objective, task.usd_per_hour, seed=seed)

    return make


def _ax(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    del sources

    def make(seed: int) -> Optimizer:
        return ax_search(task.space, task.objective, task.usd_per_hour, seed=seed)

    return make
