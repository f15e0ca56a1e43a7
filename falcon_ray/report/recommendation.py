"""Which configuration to deploy, and how sure that is.

What a search chooses by is noisy, and the best of several noisy numbers is too good on
average. So a recommendation quotes the fresh measurements taken after the choice, and says
so where there are none. It knows one record; it does not know files or terminals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from falcon_ray.report.comparison import Gain
from falcon_ray.report.contender import Contender, Standing, measured_contenders
from falcon_ray.report.nothing_feasible import NothingFeasible, nothing_feasible
from falcon_ray.report.record import Role, SearchRecord
from falcon_ray.report.valuation import Valuation, Verdict, highest, value_trials
from falcon_ray.report.wording import (
    describe_conditions,
    describe_configuration,
    describe_count,
    describe_emulated,
    describe_gain,
    describe_interval,
    describe_percent,
    describe_tie,
)
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.objective import SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The configuration to deploy.

    Attributes:
        chosen: Its configuration, measurement and price; at the mean of its fresh deployments
            where confirmed.
        standing: Whether they are fresh.
        baseline: The baseline measured afresh; None where it was not, or is `chosen` itself.
        is_baseline: Whether the baseline is what to deploy.
        gain: Over the baseline in requests per dollar; None where there is nothing to compare.
        sentence: The finding in one sentence.
        note: Why it is not the configuration that the optimizer recommended; empty where it is,
            and where the sentence says it.
        contenders: Everything that was measured afresh, each with its gain.
    """

    chosen: Valuation
    standing: Standing
    baseline: Valuation | None
    is_baseline: bool
    gain: Gain | None
    sentence: str
    note: str = ""
    contenders: tuple[Contender, ...] = field(default=())

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


def recommend(record: SearchRecord) -> Recommendation | NothingFeasible:
    """Recommend a configuration, or say why there is none.

    Of emulated GPUs the sentence says first that they are.

    The search's choice is the configuration that was measured again as its best, or without
    that the one that it ended with believing the best, unless trials ended since; else the
    trial with the highest score. It has one rival, the runner-up. Of the two, the one with the
    better fresh mean is taken, as the trials' own numbers are what both were chosen by; certified
    rates must differ by more than their step, and equal ones go to the search's choice. The
    intervals hold for both at once, so picking the better one does not make them too narrow.

    It then has to beat the baseline. Where the interval of its gain contains zero, or all of it
    lies below, the baseline is recommended: a change that nobody can show to help has a cost and
    a risk, and no known use. That holds for cheaper configurations as well, since the gain is per
    dollar. A baseline that cannot be served under the limit, or was not measured, keeps nobody.
    Where the search's choice could not be served afresh and no runner-up was, the baseline is
    recommended if it was; without it nothing is to be deployed.
    """
    found = _recommend(record)
    sentence = describe_emulated(found.sentence, emulated=record.header.emulated)
    return replace(found, sentence=sentence)


def _recommend(record: SearchRecord) -> Recommendation | NothingFeasible:
    trials = value_trials(record.trials, record.header.objective, record.header.pricing)
    trial = _choose(record, trials)
    if trial is None:
        return nothing_feasible(record.header, trials)
    contenders = {each.configuration: each for each in measured_contenders(record)}
    first = contenders.get(trial.configuration)
    confirmed = [
        each
        for each in contenders.values()
        if each.standing is Standing.CONFIRMED
        and (each is first or (each.role is Role.RUNNER_UP and first is not None))
    ]
    rival = contenders.get(record.header.baseline) if record.header.baseline is not None else None
    if (
        not confirmed
        and first is not None
        and first.standing is Standing.NOT_REPRODUCED
        and rival is not None
        and rival.standing is Standing.CONFIRMED
    ):
        return _instead_of(record, first, rival, tuple(contenders.values()))
    if not confirmed:
        standing = Standing.NOT_CONFIRMED if first is None else first.standing
        is_baseline = record.header.baseline == trial.configuration
        return Recommendation(
            chosen=trial,
            standing=standing,
            baseline=None if is_baseline else _baseline(record, tuple(contenders.values())),
            is_baseline=is_baseline,
            gain=None,
            sentence=f"{_claim(record, trial, standing)}{_doubt(first)}.",
            contenders=tuple(contenders.values()),
        )
    return _against_baseline(record, first, confirmed, tuple(contenders.values()))


def _instead_of(
    record: SearchRecord,
    first: Contender,
    baseline: Contender,
    contenders: tuple[Contender, ...],
) -> Recommendation:
    """The baseline, as nothing that the search found could be served again."""
    other = describe_configuration(first.configuration, record.header.space)
    return Recommendation(
        chosen=baseline.fresh,
        standing=Standing.CONFIRMED,
        baseline=None,
        is_baseline=True,
        gain=None,
        sentence=(
            f"{_keep(record, baseline.fresh)}: {other} was not reproduced when measured again "
            f"({first.fresh.reason})."
        ),
        contenders=contenders,
    )


def _against_baseline(
    record: SearchRecord,
    first: Contender | None,
    confirmed: Sequence[Contender],
    contenders: tuple[Contender, ...],
) -> Recommendation:
    """Hold the better of the confirmed contenders to the baseline."""
    header = record.header
    shown = [each for each in confirmed if each.gain is not None and each.gain.low > 0]
    best = _better(record, shown or confirmed, first)
    rivals = [each for each in contenders if each.configuration == header.baseline]
    keeps = best.gain is not None and not best.gain.low > 0
    chosen = rivals[0] if keeps else best
    is_baseline = chosen.configuration == header.baseline
    baseline = None if is_baseline else _baseline(record, contenders)
    if keeps:
        assert best.gain is not None, "only a comparison keeps the baseline"
        sentence = _sentence_for_baseline(record, chosen.fresh, best, best.gain)
    else:
        claim = _claim(record, chosen.fresh, Standing.CONFIRMED)
        sentence = f"{claim}{_evidence(record, chosen, baseline)}."
    return Recommendation(
        chosen=chosen.fresh,
        standing=Standing.CONFIRMED,
        baseline=baseline,
        is_baseline=is_baseline,
        gain=None if is_baseline else chosen.gain,
        sentence=sentence,
        note=_why_another(record, best, first),
        contenders=contenders,
    )


def _better(
    record: SearchRecord, contenders: Sequence[Contender], first: Contender | None
) -> Contender:
    """The one with the highest fresh score; the search's choice where they are as good."""
    best = max(contenders, key=lambda each: (each.fresh.score or 0.0, each is first))
    if first is None or first not in contenders or best is first:
        return best
    assert best.fresh.score is not None, "a confirmed contender has a score"
    assert first.fresh.score is not None, "a confirmed contender has a score"
    least = first.fresh.score * (1 + (record.header.capacity_step or 0.0))
    return best if best.fresh.score > least else first


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


def _baseline(record: SearchRecord, contenders: Sequence[Contender]) -> Valuation | None:
    found = [each.fresh for each in contenders if each.configuration == record.header.baseline]
    return found[0] if found else None


def _claim(record: SearchRecord, chosen: Valuation, standing: Standing) -> str:
    subject = describe_configuration(chosen.configuration, record.header.space)
    verb = "serves" if standing is Standing.CONFIRMED else "served"
    return f"{subject} {verb} {_worth(record, chosen)}"


def _worth(record: SearchRecord, valued: Valuation) -> str:
    assert valued.score is not None, "only a feasible configuration is chosen"
    conditions = describe_conditions(record.header.objective)
    return f"{describe_count(valued.score)} requests per dollar{conditions}"


def _doubt(first: Contender | None) -> str:
    """Why the numbers are those of a trial: the rest of the first sentence."""
    if first is None:
        return " in its trial; not confirmed, because it was not measured again"
    if first.standing is Standing.NOT_CONFIRMED:
        return (
            f" in its trial; not confirmed, because the second trial failed: {first.fresh.reason}"
        )
    return (
        f" in its trial, but not when measured again ({first.fresh.reason}); "
        "do not rely on it: nothing is exported, search on with more trials"
    )


def _evidence(record: SearchRecord, chosen: Contender, baseline: Valuation | None) -> str:
    """What stands behind the claim: the rest of the first sentence."""
    if chosen.configuration == record.header.baseline:
        return f" and is the baseline: {len(record.trials)} trials found nothing better"
    if record.header.baseline is None:
        return _interval(chosen)
    if baseline is None:
        return "; the baseline was not measured again, so there is no comparison"
    if baseline.verdict is Verdict.FAILED:
        return f"; there is no comparison, the baseline's trial failed: {baseline.reason}"
    if chosen.gain is None:
        return f"; the baseline cannot do that ({baseline.reason})"
    return f", {describe_gain(chosen.gain, record.header.capacity_step)}"


def _interval(chosen: Contender) -> str:
    if chosen.rate is None:
        return f", measured again in {_times(chosen.n_served)}"
    per_rps = SECONDS_PER_HOUR / chosen.fresh.usd_per_hour
    return f" ({describe_interval(chosen.rate, per_rps, n_deployments=chosen.n_served)})"


def _times(n_deployments: int) -> str:
    return "one deployment" if n_deployments == 1 else f"{n_deployments} deployments"


def _sentence_for_baseline(
    record: SearchRecord, baseline: Valuation, challenger: Contender, gain: Gain
) -> str:
    space, step = record.header.space, record.header.capacity_step
    other = describe_configuration(challenger.configuration, space)
    keep = _keep(record, baseline)
    if gain.shows_difference:
        return f"{keep}: measured again, {other} serves {describe_gain(gain, step)}."
    return f"{keep}: {describe_tie(gain, other, step)}."


def _keep(record: SearchRecord, baseline: Valuation) -> str:
    subject = describe_configuration(baseline.configuration, record.header.space)
    return f"Keep the baseline {subject}, which serves {_worth(record, baseline)}"


def _why_another(record: SearchRecord, best: Contender, first: Contender | None) -> str:
    """Why the runner-up rather than the search's choice was held to the baseline."""
    if first is None or best is first:
        return ""
    space = record.header.space
    one = describe_configuration(best.configuration, space)
    other = describe_configuration(first.configuration, space)
    if first.standing is not Standing.CONFIRMED or first.fresh.score is None:
        word = "failed" if first.standing is Standing.NOT_CONFIRMED else "was not reproduced"
        return f"The search's own choice {other} {word} when measured again: {first.fresh.reason}"
    assert best.fresh.score is not None, "a confirmed contender has a score"
    more = describe_percent(best.fresh.score / first.fresh.score - 1)
    return (
        f"Measured afresh, the runner-up {one} served {more} more requests per dollar than the "
        f"search's own choice {other}."
    )
