"""Whether another trial would win if an instance type cost more or less than it does today.

Prices move, and they differ between regions and contracts. What was measured stays; only
dollars are computed anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from falcon_ray.report.record import TrialRecord
from falcon_ray.report.valuation import Valuation, highest, value_trials
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import Objective

PRICE_FACTORS = (0.7, 1.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceMove:
    """What one changed price does.

    Attributes:
        instance_type: Whose price moves.
        factor: What it is multiplied by.
        winner: The trial with the highest score then.
        requests_per_dollar: That score.
        changes_winner: Whether it is another one than at today's prices.
    """

    instance_type: str
    factor: float
    winner: Configuration
    requests_per_dollar: float
    changes_winner: bool


@dataclass(frozen=True, slots=True)
class PriceSensitivity:
    """What moving each price by itself does.

    Attributes:
        moves: Those of instance types that a trial is priced by, before the move or after it.
            Empty where that is only one type: then its price scales all scores alike.
        n_cut_short: Trials that were cut short and win at no price tried, though their rates may
            be higher than is known.
    """

    moves: tuple[PriceMove, ...]
    n_cut_short: int = 0

    @property
    def changes(self) -> tuple[PriceMove, ...]:
        """The moves that make another trial the winner."""
        return tuple(move for move in self.moves if move.changes_winner)

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        left = f", {self.n_cut_short} cut short left out" if self.n_cut_short else ""
        if not self.moves:
            return "All trials are priced by one instance type: its price scales all scores alike."
        if not self.changes:
            return f"The winner stays the same when any one instance's price moves by 30 %{left}."
        told = "; ".join(
            f"with {move.instance_type} {abs(move.factor - 1) * 100:.0f} % "
            f"{'dearer' if move.factor > 1 else 'cheaper'} it is {move.winner}"
            for move in self.changes
        )
        return f"The winner depends on prices{left}: {told}."


def price_sensitivity(
    trials: Sequence[TrialRecord], objective: Objective, pricing: Pricing
) -> PriceSensitivity:
    """Rank the trials again with each instance type's price at 70 % and at 130 %.

    The trials' own measurements decide, today's winner included, so that a difference between
    a trial and its confirmation is never taken for an effect of prices. What is known of a trial
    that was cut short is enough to make it win, not to make it lose: it counts only where it wins.
    """
    before = value_trials(trials, objective, pricing)
    today = highest(before)
    moves: list[PriceMove] = []
    for instance in pricing.instances:
        for factor in PRICE_FACTORS:
            moved = pricing.scaled(instance.instance_type, factor)
            valuations = value_trials(trials, objective, moved)
            winner = highest(valuations)
            if today is None or winner is None or winner.score is None:
                continue
            hosts = _hosts(before, today) | _hosts(valuations, winner)
            if instance.instance_type not in hosts:
                continue
            moves.append(
                PriceMove(
                    instance_type=instance.instance_type,
                    factor=factor,
                    winner=winner.configuration,
                    requests_per_dollar=winner.score,
                    changes_winner=winner.configuration != today.configuration,
                )
            )
    types = {move.instance_type for move in moves}
    winners = {move.winner for move in moves}
    if today is not None:
        winners.add(today.configuration)
    return PriceSensitivity(
        tuple(moves) if len(types) > 1 else (),
        n_cut_short=sum(
            each.score is not None and _is_cut_short(each) and each.configuration not in winners
            for each in before
        ),
    )


def _hosts(valuations: Iterable[Valuation], winner: Valuation) -> set[str]:
    """The instance types that the trials that count are priced by."""
    return {
        each.instance_type
        for each in valuations
        if each.score is not None
        and (not _is_cut_short(each) or each.configuration == winner.configuration)
    }


def _is_cut_short(valued: Valuation) -> bool:
    return valued.measurement is not None and bool(valued.measurement.cut_short)
