"""Which fresh measurements a search ends with, and which of them are still missing.

Nothing is chosen by a confirmation's own number before all are there, so their mean is not too
good on average. The module knows one record. It does not measure, nor does it recommend.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from falcon_ray.report.record import Confirmation, Role, SearchRecord
from falcon_ray.report.valuation import highest, value_trials
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation, TrialStatus

MAX_FAILED = 3
"""Failures of the infrastructure under one measurement after which it is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshTrial:
    """A deployment to be made: in which role and round, and of what."""

    role: Role
    round_number: int
    configuration: Configuration


def contenders(record: SearchRecord, best: Configuration) -> tuple[tuple[Role, Configuration], ...]:
    """What each round measures: the best, the runner-up and the baseline, equal ones once.

    The runner-up is the trial with the highest score of all other configurations. Where that is
    the baseline, or the best is, two configurations are left.

    Args:
        record: The trials.
        best: What the optimizer recommends.
    """
    header = record.header
    trials = value_trials(record.trials, header.objective, header.pricing)
    second = highest(each for each in trials if each.configuration != best)
    found = [(Role.BEST, best)]
    if second is not None and second.configuration != header.baseline:
        found.append((Role.RUNNER_UP, second.configuration))
    if header.baseline is not None and header.baseline != best:
        found.append((Role.BASELINE, header.baseline))
    return tuple(found)


def missing_trials(
    record: SearchRecord, best: Configuration, *, n_rounds: int
) -> tuple[FreshTrial, ...]:
    """What is still to be measured, in order.

    Every second round has the reverse order, so that a drift of the machine meets all alike.
    What failed for reasons outside its configuration is missing again, up to `MAX_FAILED` times.
    A configuration that could not be served in one round is not tried in the next: it is not
    reproduced, whatever another deployment would do.

    Args:
        record: What was measured since the last trial.
        best: What the optimizer recommends.
        n_rounds: At least 1.
    """
    current = [each for each in record.confirmations if each.n_trials_before == len(record.trials)]
    done: set[tuple[Configuration, int]] = set()
    failed: Counter[tuple[Configuration, int]] = Counter()
    infeasible: set[Configuration] = set()
    for each in current:
        key = each.observation.configuration, each.round_number
        match each.observation.status:
            case TrialStatus.MEASURED:
                done.add(key)
            case TrialStatus.INFEASIBLE:
                infeasible.add(each.observation.configuration)
            case TrialStatus.FAILED:
                failed[key] += 1
    wanted = contenders(record, best)
    return tuple(
        FreshTrial(role=role, round_number=number, configuration=configuration)
        for number in range(1, n_rounds + 1)
        for role, configuration in (wanted if number % 2 else reversed(wanted))
        if (configuration, number) not in done
        and configuration not in infeasible
        and failed[configuration, number] < MAX_FAILED
    )


def latest_confirmations(record: SearchRecord) -> tuple[Confirmation, ...]:
    """The confirmations after the last trial that any were made after.

    Earlier ones were taken at another time, and are no fair comparison with these.
    """
    last = max((each.n_trials_before for each in record.confirmations), default=0)
    return tuple(each for each in record.confirmations if each.n_trials_before == last)


def fresh_observations(record: SearchRecord) -> Mapping[Configuration, tuple[Observation, ...]]:
    """The latest fresh deployments by configuration, one for each round, in order.

    A failure counts only where nothing else came of the round.
    """
    by_round: dict[Configuration, dict[int, Observation]] = {}
    for each in latest_confirmations(record):
        rounds = by_round.setdefault(each.observation.configuration, {})
        if (
            each.observation.status is not TrialStatus.FAILED
            or each.round_number not in rounds
            or rounds[each.round_number].status is TrialStatus.FAILED
        ):
            rounds[each.round_number] = each.observation
    return {
        configuration: tuple(rounds[number] for number in sorted(rounds))
        for configuration, rounds in by_round.items()
    }
