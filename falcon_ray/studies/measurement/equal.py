"""Six configurations that are equally good, and how seldom a search says otherwise.

The search is a real one in virtual time: batches of a simulated service are completed and their
throughput is estimated as in a trial, the journal's record is built, the confirmations are those
that a record asks for, and `recommend` concludes. Only Ray is missing, and the optimizer: the
trial with the highest score is recommended, which has been luckier than any other choice.

    sd        of the log rate between deployments of one configuration; 5 % unless told
    round     each of the best two and the baseline deployed once more
"""

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from falcon_ray.report.confirmation import missing_trials
from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.report.record import Confirmation, SearchHeader, SearchRecord, TrialRecord
from falcon_ray.report.valuation import Valuation, highest, value_trials
from falcon_ray.space.catalogue import cpu_node
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.options import MeasurementOptions
from falcon_ray.trial.statistics import throughput

GOAL_SHARE = 0.9
DEPLOYMENT_SD = 0.05
TRUE_RPS = 200.0
BATCH_SIZE = 16
N_BATCHES = 100
"""8 s of batches at the true rate: 100 * 16 / 200."""
BATCH_SD = 0.1
"""Of the log of one batch's time: it gives intervals of about +-2 % within a deployment."""
BETTER = 3
"""Which of the six is truly better, where one is; the first is the baseline."""

SPACE = ConfigurationSpace.of({"variant": [1, 2, 3, 4, 5, 6]})
HEADER = SearchHeader(
    search_id="equal",
    target="a simulated service",
    settings={},
    space=SPACE,
    objective=Objective(),
    pricing=Pricing((cpu_node(4, 16, 0.2),)),
    seed=0,
    baseline=SPACE.candidates[0],
    versions={},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one simulated search said.

    Attributes:
        naive_gain: Of the highest single measurement over the baseline's; 0 where that is it.
        shows_difference: Whether it showed any contender to be better or worse than the baseline.
        names_better: Whether it recommended the truly better one with a gain that is shown.
        gain: What it claimed for its recommendation; 0 where the baseline is kept.
    """

    naive_gain: float
    shows_difference: bool
    names_better: bool
    gain: float


def figures(options: MeasurementOptions) -> list[Figure]:
    """How often nothing is claimed where nothing is, and a true gain where there is one."""
    n_runs, goal = options.runs, math.ceil(GOAL_SHARE * options.runs)
    equal = {n: _runs(n_runs, n_rounds=n, true_gain=0.0) for n in (1, 2, 3)}
    naive = [each.naive_gain for each in equal[2] if each.naive_gain > 0]
    noise = f"6 configurations, {100 * DEPLOYMENT_SD:g} % noise per deployment, virtual time"
    return [
        Figure(
            name='equal configurations, 2 rounds: "no difference shown"',
            value=sum(not each.shows_difference for each in equal[2]),
            unit=f"of {n_runs}",
            at_least=goal,
            note=noise,
        ),
        Figure(
            name="the same, 3 rounds",
            value=sum(not each.shows_difference for each in equal[3]),
            unit=f"of {n_runs}",
            at_least=goal,
        ),
        Figure(
            name="the same, 1 round: intervals within one deployment each",
            value=sum(not each.shows_difference for each in equal[1]),
            unit=f"of {n_runs}",
            note="they do not hold how deployments differ",
        ),
        Figure(
            name="best of one measurement each: claims a gain over the default",
            value=len(naive),
            unit=f"of {n_runs}",
            note="the rule of tools that do not confirm",
        ),
        Figure(
            name="the gain it claims, where there is none",
            value=100 * fmean(naive) if naive else 0.0,
            unit="%",
            note="mean over the runs with a claim",
        ),
        *_power_figures(n_runs),
    ]


def _power_figures(n_runs: int) -> Iterator[Figure]:
    for true_gain in (0.2, 0.1):
        for n_rounds in (2, 3):
            runs = _runs(n_runs, n_rounds=n_rounds, true_gain=true_gain)
            named = [each.gain for each in runs if each.names_better]
            claimed = f"{100 * fmean(named):.0f} %" if named else "nothing"
            yield Figure(
                name=f"one truly {100 * true_gain:.0f} % better, {n_rounds} rounds: it is shown",
                value=len(named),
                unit=f"of {n_runs}",
                note=f"it then claims {claimed} in the mean",
            )


def _runs(n_runs: int, *, n_rounds: int, true_gain: float) -> list[Outcome]:
    return [
        simulated_search(np.random.default_rng(seed), n_rounds=n_rounds, true_gain=true_gain)
        for seed in range(n_runs)
    ]


def simulated_search(
    rng: np.random.Generator,
    *,
    n_rounds: int,
    true_gain: float = 0.0,
    deployment_sd: float = DEPLOYMENT_SD,
) -> Outcome:
    """Measure all six once, confirm the best two and the baseline, and conclude.

    Args:
        rng: Of deployments and batches.
        n_rounds: Of fresh deployments.
        true_gain: By which one of them is better than the rest.
        deployment_sd: Standard deviation of the log rate between deployments.
    """
    better = SPACE.candidates[BETTER]

    def deployed(configuration: Configuration) -> Observation:
        factor = 1 + true_gain if configuration == better else 1.0
        rate_rps = TRUE_RPS * factor * math.exp(rng.normal(0.0, deployment_sd))
        return Observation(
            configuration=configuration,
            status=TrialStatus.MEASURED,
            measurement=_measured(rate_rps, rng),
        )

    record = _record([deployed(each) for each in SPACE.candidates])
    trials = value_trials(record.trials, HEADER.objective, HEADER.pricing)
    best = highest(trials)
    assert best is not None, "every simulated trial is measured"
    while missing := missing_trials(record, best.configuration, n_rounds=n_rounds):
        fresh = Confirmation(
            role=missing[0].role,
            observation=deployed(missing[0].configuration),
            wall_s=0.0,
            n_trials_before=len(record.trials),
            round_number=missing[0].round_number,
        )
        record = replace(record, confirmations=(*record.confirmations, fresh))
    found = recommend(record)
    assert isinstance(found, Recommendation), "every simulated trial is feasible"
    gain = 0.0 if found.gain is None else found.gain.value
    return Outcome(
        naive_gain=_score(best) / _score(trials[0]) - 1,
        shows_difference=any(
            each.gain is not None and each.gain.shows_difference for each in found.contenders
        ),
        names_better=found.configuration == better and gain > 0,
        gain=gain,
    )


def _record(observations: Sequence[Observation]) -> SearchRecord:
    return SearchRecord(
        header=HEADER,
        started=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        trials=tuple(
            TrialRecord(number=number, why="all are tried", expected={}, observation=each, wall_s=0)
            for number, each in enumerate(observations, start=1)
        ),
        interrupted=(),
        confirmations=(),
        end_reason=f"all {len(observations)} are tried",
    )


def _measured(rate_rps: float, rng: np.random.Generator) -> Measurement:
    """Throughput and its interval from the completions of noisy batches at this mean rate."""
    batch_s = BATCH_SIZE / rate_rps * rng.lognormal(-(BATCH_SD**2) / 2, BATCH_SD, N_BATCHES)
    done_s = np.repeat(np.cumsum(batch_s), BATCH_SIZE)
    estimate = throughput(done_s, granularity=BATCH_SIZE)
    assert estimate is not None, "there are enough batches"
    return Measurement(
        saturation_rps=estimate.mean,
        saturation_rps_ci_low=estimate.ci_low,
        saturation_rps_ci_high=estimate.ci_high,
        n_requests=done_s.size,
    )


def _score(valued: Valuation) -> float:
    assert valued.score is not None, "every simulated trial is measured"
    return valued.score
