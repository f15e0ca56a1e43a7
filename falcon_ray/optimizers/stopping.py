"""When a search has found what it is going to find.

The rule knows what one more trial is expected to bring. It does not know who computed that, nor
budgets of trials, time or money.
"""

from dataclasses import dataclass

LEAST_GAIN = 0.01
"""Expected gain of one more trial, relative to the best so far, below which a search stops."""
CLEAR_GAIN = 0.05
LEAST_PROBABILITY = 0.10
"""That anything untried is clearly better, below which a search stops."""
LEAST_MEASURED = 3
"""Trials with a score before the rule is asked: error bars of a prior are not to be trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is left to gain.

    Attributes:
        expected_gain: Of the best next trial, relative to the best score so far.
        probability_of_better: That any untried candidate scores more than 1.05 times that.
        n_measured: Trials with a score so far.
    """

    expected_gain: float
    probability_of_better: float
    n_measured: int


def why_stop(outlook: Outlook) -> str:
    """Why a search should end now, in words; empty where it should go on."""
    if outlook.n_measured < LEAST_MEASURED:
        return ""
    if outlook.expected_gain < LEAST_GAIN:
        return f"one more trial is expected to gain less than {_percent(LEAST_GAIN)}"
    if outlook.probability_of_better < LEAST_PROBABILITY:
        return (
            f"that anything untried is more than {_percent(CLEAR_GAIN)} better has a probability "
            f"below {_percent(LEAST_PROBABILITY)}"
        )
    return ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
