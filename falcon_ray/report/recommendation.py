"""Which configuration to deploy, and how sure that is.

What a search chooses by is noisy, and the best of several noisy numbers is too good on
average. So a recommendation quotes the fresh measurements taken after the choice, and says
so where there are none. It knows one record; it does not know files or terminals.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from falcon_ray.errors import (
    ClusterError,
    FalconRayError,
    NothingFeasibleError,
    SearchInterruptedError,
)
from falcon_ray.report.comparison import Gain, gain_in_score
from falcon_ray.report.record import Role, SearchRecord
from falcon_ray.report.valuation import Valuation, Verdict, highest, value, value_trials
from falcon_ray.report.wording import (
    describe_configuration,
    describe_count,
    describe_gain,
    describe_slo,
    describe_throughput_interval,
)
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.objective import SECONDS_PER_HOUR


class Standing(Enum):
    """What a second measurement said about the chosen configuration."""

    CONFIRMED = "confirmed"
    """It was measured again; the fresh numbers are quoted."""
    NOT_CONFIRMED = "not confirmed"
    """There is no second measurement; its trial's numbers are quoted."""
    NOT_REPRODUCED = "not reproduced"
    """The second deployment could not be served, or not under the SLO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The configuration to deploy.

    Attributes:
        chosen: Its configuration, measurement and price; the fresh ones where confirmed.
        standing: Whether they are fresh.
        baseline: The baseline measured afresh; None where it was not, or is `chosen` itself.
        is_baseline: Whether the baseline is what to deploy.
        gain: Over the baseline in requests per dollar; None where there is nothing to compare.
        sentence: The finding in one sentence.
    """

    chosen: Valuation
    standing: Standing
    baseline: Valuation | None
    is_baseline: bool
    gain: Gain | None
    sentence: str

    @property
    def configuration(self) -> Configuration:
        """What to deploy."""
        return self.chosen.configuration

    @property
    def requests_per_dollar(self) -> float:
        """The score."""
        assert self.chosen.score is not None, "only a feasible configuration is chosen"
        return self.chosen.score

    @property
    def requests_per_second(self) -> float:
        """The rate that the score pays for."""
        assert self.chosen.rate_rps is not None, "only a feasible configuration is chosen"
        return self.chosen.rate_rps


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingFeasible:
    """Why there is nothing to recommend.

    Attributes:
        closest: The trial that missed the SLO by least; None where none was measured.
        excess_ms: Its latency at the lightest load minus the budget. Not positive where the
            latency was within the budget and too few requests were sent to certify it.
        sentence: The finding in one sentence, and what to do next.
        error_type: What a command that was to find something ends with.
    """

    closest: Valuation | None
    excess_ms: float | None
    sentence: str
    error_type: type[FalconRayError]

    @property
    def error(self) -> FalconRayError:
        """The finding as the error that a command ends with."""
        return self.error_type(self.sentence)


def recommend(record: SearchRecord) -> Recommendation | NothingFeasible:
    """Recommend a configuration, or say why there is none.

    The configuration that the search measured again as its best is chosen, or without that the
    one that it ended with believing the best, unless trials ended since; else the trial with the
    highest score. Where the fresh measurements show that
    the baseline is better after all, the baseline is recommended.
    """
    header = record.header
    trials = value_trials(record.trials, header.objective, header.pricing)
    trial = _choose(record, trials)
    if trial is None:
        return _nothing_feasible(record, trials)
    fresh = _measured_again(record, trial.configuration)
    standing = _standing(fresh)
    chosen = fresh if fresh is not None and standing is Standing.CONFIRMED else trial
    if header.baseline is None or header.baseline == chosen.configuration:
        baseline = None
    else:
        baseline = _measured_again(record, header.baseline)
    gain = _gain(record, chosen, baseline) if standing is Standing.CONFIRMED else None
    if gain is not None and gain.high < 0:
        assert baseline is not None, "a gain is over the baseline"
        return Recommendation(
            chosen=baseline,
            standing=standing,
            baseline=None,
            is_baseline=True,
            gain=None,
            sentence=_sentence_for_baseline(record, baseline, chosen, gain),
        )
    return Recommendation(
        chosen=chosen,
        standing=standing,
        baseline=baseline,
        is_baseline=header.baseline == chosen.configuration,
        gain=gain,
        sentence=f"{_claim(record, chosen, standing)}{_evidence(record, fresh, baseline, gain)}.",
    )


def _choose(record: SearchRecord, trials: Sequence[Valuation]) -> Valuation | None:
    """The trial of the configuration to recommend; None where no trial has a score."""
    scored = {each.configuration: each for each in trials if each.score is not None}
    for confirmation in reversed(record.confirmations):
        current = confirmation.n_trials_before == len(record.trials)
        if current and confirmation.role is Role.BEST:
            return scored.get(confirmation.observation.configuration, highest(trials))
    conclusion = record.conclusion
    if conclusion is not None and conclusion.n_trials == len(record.trials):
        believed = conclusion.recommended
        if believed is not None:
            return scored.get(believed, highest(trials))
    return highest(trials)


def _measured_again(record: SearchRecord, configuration: Configuration) -> Valuation | None:
    """The last fresh measurement of a configuration, in whichever role."""
    for confirmation in reversed(record.confirmations):
        if confirmation.observation.configuration == configuration:
            header = record.header
            return value(confirmation.observation, header.objective, header.pricing)
    return None


def _standing(fresh: Valuation | None) -> Standing:
    if fresh is None or fresh.verdict is Verdict.FAILED:
        return Standing.NOT_CONFIRMED
    if fresh.verdict is Verdict.FEASIBLE:
        return Standing.CONFIRMED
    return Standing.NOT_REPRODUCED


def _gain(record: SearchRecord, chosen: Valuation, baseline: Valuation | None) -> Gain | None:
    if baseline is None or baseline.measurement is None or chosen.measurement is None:
        return None
    return gain_in_score(
        chosen.measurement,
        baseline.measurement,
        objective=record.header.objective,
        best_usd_per_hour=chosen.usd_per_hour,
        baseline_usd_per_hour=baseline.usd_per_hour,
        capacity_step=record.header.capacity_step,
    )


def _claim(record: SearchRecord, chosen: Valuation, standing: Standing) -> str:
    subject = describe_configuration(chosen.configuration, record.header.space)
    verb = "serves" if standing is Standing.CONFIRMED else "served"
    assert chosen.score is not None, "only a feasible configuration is chosen"
    slo = record.header.objective.slo
    limit = "" if slo is None else f" with {describe_slo(slo)}"
    return f"{subject} {verb} {describe_count(chosen.score)} requests per dollar{limit}"


def _evidence(
    record: SearchRecord, fresh: Valuation | None, baseline: Valuation | None, gain: Gain | None
) -> str:
    """What stands behind the claim: the rest of the first sentence."""
    if fresh is None:
        return " in its trial; not confirmed, because it was not measured again"
    if fresh.verdict is Verdict.FAILED:
        return f" in its trial; not confirmed, because the second trial failed: {fresh.reason}"
    if fresh.verdict is not Verdict.FEASIBLE:
        return (
            f" in its trial, but not when measured again ({fresh.reason}); "
            "do not rely on it, search on with more trials"
        )
    if fresh.configuration == record.header.baseline:
        return f" and is the baseline: {len(record.trials)} trials found nothing better"
    if record.header.baseline is None:
        return _interval(record, fresh)
    return _comparison(record, baseline, gain)


def _interval(record: SearchRecord, fresh: Valuation) -> str:
    interval = ""
    if fresh.measurement is not None and record.header.objective.slo is None:
        per_rps = SECONDS_PER_HOUR / fresh.usd_per_hour
        interval = describe_throughput_interval(fresh.measurement, per_rps)
    return f" ({interval})" if interval else ", measured again"


def _comparison(record: SearchRecord, baseline: Valuation | None, gain: Gain | None) -> str:
    if baseline is None:
        return "; the baseline was not measured again, so there is no comparison"
    if baseline.verdict is Verdict.FAILED:
        return f"; there is no comparison, the baseline's trial failed: {baseline.reason}"
    if gain is None:
        return f"; the baseline cannot do that ({baseline.reason})"
    return f", {describe_gain(gain, record.header.capacity_step)}"


def _sentence_for_baseline(
    record: SearchRecord, baseline: Valuation, challenger: Valuation, gain: Gain
) -> str:
    other = describe_configuration(challenger.configuration, record.header.space)
    return (
        f"{_claim(record, baseline, Standing.CONFIRMED)} and is the baseline: measured again, "
        f"the search's choice {other} serves {describe_gain(gain, record.header.capacity_step)}."
    )


def _nothing_feasible(record: SearchRecord, trials: Sequence[Valuation]) -> NothingFeasible:
    slo = record.header.objective.slo
    measured = [
        (each.measurement.floor_latency_ms, each)
        for each in trials
        if each.measurement is not None
        and each.measurement.floor_latency_ms is not None
        and math.isfinite(each.measurement.floor_latency_ms)
    ]
    if slo is not None and measured:
        floor_ms, closest = min(measured, key=lambda pair: pair[0])
        excess_ms = floor_ms - slo.latency_budget_ms
        name = describe_configuration(closest.configuration, record.header.space)
        start = f"None of {len(trials)} trials served {describe_slo(slo)}; closest was {name}"
        if excess_ms > 0:
            told = (
                f"{start}, {excess_ms:.3g} ms ({100 * excess_ms / slo.latency_budget_ms:.0f} %) "
                f"over at the lightest load; raise the latency budget to {floor_ms:.3g} ms or "
                "more, or widen the space"
            )
        else:
            told = (
                f"{start}, with {floor_ms:.3g} ms at the lightest load, but too few requests "
                "to certify it; measure for longer"
            )
        return NothingFeasible(
            closest=closest,
            excess_ms=excess_ms,
            sentence=f"{told}.",
            error_type=NothingFeasibleError,
        )
    return _nothing_measured(trials)


def _nothing_measured(trials: Sequence[Valuation]) -> NothingFeasible:
    error_type: type[FalconRayError]
    if not trials:
        error_type, told = SearchInterruptedError, "No trial has ended yet; resume the search."
    else:
        reason = Counter(each.reason for each in trials).most_common(1)[0][0]
        if all(each.verdict is Verdict.FAILED for each in trials):
            error_type = ClusterError
            told = (
                f"All {len(trials)} trials failed for reasons outside their configurations, "
                f"most often: {reason}; check the cluster, then resume the search."
            )
        else:
            error_type = NothingFeasibleError
            told = (
                f"None of {len(trials)} trials could be served, most often because: {reason}; "
                "widen the space, or try the model by itself."
            )
    return NothingFeasible(closest=None, excess_ms=None, sentence=told, error_type=error_type)
