"""Peers that ask and tell over a product are put onto listed candidates."""

from typing import Any

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.optimizers.baselines.pool_search import PoolSearch, Trials
from falcon_ray.optimizers.replay import ReplayTask, replay
from falcon_ray.studies.search.methods import methods
from falcon_ray.studies.search.peers.ask_tell import AskTell, Codes, is_installed, peer_module
from tests.unit.optimizers.recorded import by_batch, recorded

SPARSE = recorded(
    {
        (("gpu_type", "L4"), ("batch_size", 1)): 4.0,
        (("gpu_type", "L4"), ("batch_size", 8)): None,
        (("gpu_type", "A100"), ("batch_size", 2)): 2.0,
        (("gpu_type", "A100"), ("batch_size", 8)): 1.0,
    }
)
# Values in their order: gpu_type L4 "0", A100 "1"; batch_size 1 0, 2 1, 8 2.


class Scripted:
    """A `Peer` that proposes what it was given, and remembers the rest."""

    def __init__(self, *proposals: tuple[str, int] | None) -> None:
        self._proposals = list(proposals)
        self.settled: list[Codes] = []
        self.told: list[tuple[Codes, float]] = []

    def ask(self) -> Codes | None:
        proposal = self._proposals.pop(0) if self._proposals else None
        return None if proposal is None else codes(*proposal)

    def settle(self, codes: Codes) -> None:
        self.settled.append(codes)

    def tell(self, codes: Codes, value: float) -> None:
        self.told.append((codes, value))


def trials(tried: list[int], log_scores: list[float]) -> Trials:
    return Trials(
        tried=np.array(tried),
        log_scores=np.array(log_scores),
        pending=np.zeros(0, dtype=np.intp),
        available=np.setdiff1d(np.arange(4), tried),
    )


def codes(gpu_type: str, batch_size: int) -> Codes:
    return {"gpu_type": gpu_type, "batch_size": batch_size}


def search(task: ReplayTask, peer: Scripted, *, n_initial: int = 10) -> PoolSearch:
    chooser = AskTell(task.space, peer, n_initial=n_initial)
    return PoolSearch(task.space, task.objective, task.usd_per_hour, seed=0, chooser=chooser)


def test_a_proposal_that_is_a_candidate_is_tried() -> None:
    peer = Scripted(("1", 2))
    assert replay(SPARSE, search(SPARSE, peer), budget=1).tolist() == [3]
    assert peer.settled == [codes("1", 2)]


def test_another_proposal_is_replaced_by_the_nearest_untried_candidate() -> None:
    # No A100 with batch 1: batch 2 is a third of the way, the L4 a whole one. Then it is tried.
    peer = Scripted(("1", 0), ("1", 1))
    assert replay(SPARSE, search(SPARSE, peer), budget=2).tolist() == [2, 3]
    assert peer.settled == [codes("1", 1), codes("1", 2)]


def test_what_is_infeasible_is_told_as_the_worst_score_once_there_is_one() -> None:
    peer = Scripted(("0", 2), ("1", 1), ("0", 0), ("1", 2))
    replay(SPARSE, search(SPARSE, peer), budget=4)
    # Scores 2 and 4; log 2 = 0.693, log 4 = 1.386. The first trial has no score and waits.
    assert [each for each, _ in peer.told] == [codes("0", 2), codes("1", 1), codes("0", 0)]
    assert [value for _, value in peer.told] == pytest.approx([0.693, 0.693, 1.386], abs=1e-3)


def test_after_its_initial_design_a_peer_waits_for_a_first_score() -> None:
    peer = Scripted(("0", 0))
    chooser = AskTell(SPARSE.space, peer, n_initial=1)
    rng = np.random.default_rng(0)
    no_score = trials([1], [np.nan])
    assert chooser(no_score, rng)[1].startswith("drawn uniformly")
    assert peer.settled == []
    assert chooser(trials([1, 3], [np.nan, 0.0]), rng)[0] == 0
    assert peer.told == [(codes("0", 2), 0.0), (codes("1", 2), 0.0)]


def test_a_peer_without_a_proposal_is_replaced_by_chance() -> None:
    assert sorted(replay(SPARSE, search(SPARSE, Scripted()), budget=4).tolist()) == [0, 1, 2, 3]


def test_a_module_that_is_not_installed_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match=r"no_such is not installed .*scripts/environment bench"):
        peer_module("no_such.part")


@pytest.mark.parametrize(
    ("name", "budget"), [("optuna_tpe", 14), ("optuna_gp", 12), ("smac", 5), ("ax", 5)]
)
def test_each_peer_searches_and_repeats_itself_by_seed(name: str, budget: int) -> None:
    (method,) = methods([name])
    if not is_installed(method.package):
        pytest.skip(f"{method.package} is not installed; run scripts/environment bench")
    task: Any = recorded(
        {
            (("gpu_type", gpu), ("batch_size", 2**i)): None if i == 6 else float(i + speed)
            for gpu, speed in (("L4", 1), ("A100", 3))
            for i in range(8)
        }
    )
    make = method.prepare(task, [])
    first, again = (replay(task, make(3), budget=budget).tolist() for _ in range(2))
    assert first == again
    assert len(set(first)) == budget
    assert replay(task, make(3), budget=4, batch_size=2).size == 4


def test_a_task_of_one_candidate_needs_no_proposal() -> None:
    task = by_batch([1.0])
    assert replay(task, search(task, Scripted()), budget=3).tolist() == [0]
