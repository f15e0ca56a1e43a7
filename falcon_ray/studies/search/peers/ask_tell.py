"""Puts an optimizer that asks and tells over a product of values onto listed candidates.

Tables are irregular subsets of a product, which none of the peers can be told. A proposal that is
no untried candidate is replaced by the nearest one, and the peer is told the truth: that candidate
and its score. An infeasible trial counts as the worst score so far, as a user would do it; before
the first score there is no worst one, and the peer has only its initial design to go on: when that
is used up, candidates are drawn at random until one has a score. Scores are given as logs, which
is kind to those that model them by a Gaussian process.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.optimizers.baselines.pool_search import Trials
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.dimension import Dimension, Scale, Value


@dataclass(frozen=True, slots=True)
class Choice:
    """A dimension with two values or more, as every peer understands it.

    Attributes:
        dimension: Whose values it has.
    """

    dimension: Dimension

    @property
    def name(self) -> str:
        """Of the dimension."""
        return self.dimension.name

    @property
    def ordinal(self) -> bool:
        """Whether values compare; they are then counted from 0, else labelled."""
        return self.dimension.scale is not Scale.CATEGORICAL

    @property
    def last(self) -> int:
        """The highest position."""
        return len(self.dimension.values) - 1

    @property
    def labels(self) -> list[str]:
        """One text per value."""
        return [str(position) for position in range(self.last + 1)]

    def code(self, value: Value) -> int | str:
        """A value as the peer names it: its position, as a text where values do not compare."""
        position = self.dimension.values.index(value)
        return position if self.ordinal else str(position)

    def value(self, code: float | str) -> Value:
        """What `code` made of it, undone."""
        return self.dimension.values[int(code)]


def choices(space: ConfigurationSpace) -> tuple[Choice, ...]:
    """The dimensions of a space in which candidates can differ."""
    return tuple(Choice(each) for each in space.dimensions if len(each.values) > 1)


Codes: TypeAlias = dict[str, Any]
"""One code per choice, by name."""


class Peer(Protocol):
    """Somebody else's optimizer of codes; it maximises."""

    def ask(self) -> Codes | None:
        """A proposal, which may be no candidate; None where it has none."""
        ...

    def settle(self, codes: Codes) -> None:
        """What stands in for the last proposal; the same where that was a candidate."""
        ...

    def tell(self, codes: Codes, value: float) -> None:
        """How good something is, whether it was asked for or not."""
        ...


class AskTell:
    """Chooses what a peer proposes; a `Chooser`.

    Args:
        space: The n candidates.
        peer: New.
        n_initial: Trials of the peer's initial design.
    """

    def __init__(self, space: ConfigurationSpace, peer: Peer, *, n_initial: int) -> None:
        self._space = space
        self._choices = choices(space)
        self._x = space.encode(space.candidates)
        self._peer = peer
        self._n_initial = n_initial
        self._n_told = 0

    def __call__(self, trials: Trials, rng: np.random.Generator) -> tuple[int, str]:
        """See `Chooser`."""
        n_started = trials.tried.size + trials.pending.size
        with quiet():
            self._tell(trials)
            waiting = not trials.feasible.any() and n_started >= self._n_initial
            if trials.available.size == 1:
                return int(trials.available[0]), "the only candidate that is left"
            proposal = None if waiting else self._peer.ask()
            if proposal is None:
                return int(rng.choice(trials.available)), "drawn uniformly: nothing was proposed"
            index = self._nearest(proposal, trials)
            self._peer.settle(self._codes(index))
        return index, "proposed, or nearest to what was proposed"

    def _tell(self, trials: Trials) -> None:
        """Tell what is new, as soon as there is a worst score for what is infeasible."""
        if not trials.feasible.any():
            return
        for position in range(self._n_told, trials.tried.size):
            so_far = trials.log_scores[: position + 1]
            if not np.isfinite(so_far).any():
                so_far = trials.log_scores
            score = trials.log_scores[position]
            value = score if np.isfinite(score) else np.nanmin(so_far)
            self._peer.tell(self._codes(int(trials.tried[position])), float(value))
        self._n_told = trials.tried.size

    def _codes(self, index: int) -> Codes:
        candidate = self._space.candidate(index)
        return {each.name: each.code(candidate[each.name]) for each in self._choices}

    def _nearest(self, proposal: Mapping[str, Any], trials: Trials) -> int:
        """The available candidate that is nearest to a proposal, the first among equals."""
        at = self._space.encode([self._configuration(proposal)])[0]
        distances = ((self._x[trials.available] - at) ** 2).sum(axis=1)
        return int(trials.available[distances.argmin()])

    def _configuration(self, proposal: Mapping[str, Any]) -> Configuration:
        fixed = {each.name: each.values[0] for each in self._space.dimensions}
        chosen = {each.name: each.value(proposal[each.name]) for each in self._choices}
        return Configuration(fixed | chosen)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings: what peers warn of, experimental parts and retries, is theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def peer_module(name: str) -> Any:  # noqa: ANN401 - what the bench extra brings is not typed here
    """A module of the `bench` extra, imported when it is needed.

    Raises:
        InputError: It is not installed.
    """
    try:
        with quiet():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name.partition('.')[0]} is not installed ({error}); run scripts/environment bench"
        ) from None
