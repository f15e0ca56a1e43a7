"""Whether a search that something happened to lost, repeated or changed anything.

Journals alone say that. The module does not know what happened.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.report.record import SearchRecord
from falcon_ray.space.observation import TrialStatus


def what_is_wrong(before: bytes, after: bytes, *, n_trials: int) -> tuple[str, ...]:
    """What a search lost, counted twice or changed; empty where all is as it should be.

    A trial that ran when its search was killed has no end: its configuration is tried again by
    another number.

    Args:
        before: The whole lines of the journal when it happened.
        after: Those at the end.
        n_trials: That the search was to count; the infrastructure's failures do not.
    """
    return tuple(_wrong(before, after, n_trials))


def _wrong(before: bytes, after: bytes, n_trials: int) -> Iterator[str]:
    if not after.startswith(before):
        yield "what was in the journal before has changed"
    books = _Books()
    last = ""
    for line in after.splitlines():
        event: dict[str, Any] = json.loads(line)
        last = event["event"]
        books.add(event)
    yield from books.wrong
    for number in sorted(books.running):
        yield f"trial {number} never ended"
    for configuration, times in books.counted.items():
        if times > 1:
            yield f"{configuration} was counted {times} times"
    if books.counted.total() != n_trials:
        yield f"{books.counted.total()} trials count, and not {n_trials}"
    if last != "search_ended":
        yield "the search did not end by itself"


class _Books:
    """What the events so far add up to."""

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.running: set[int] = set()
        self.counted: Counter[str] = Counter()
        self.wrong: list[str] = []

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one more event."""
        match event["event"]:
            case "search_resumed":
                self.running.clear()
            case "trial_started":
                self._start(event["trial"])
            case "trial_ended":
                self._end(event["trial"], event["observation"])
            case _:
                pass

    def _start(self, number: int) -> None:
        if number in self.begun:
            self.wrong.append(f"trial {number} started twice")
        self.begun.add(number)
        self.running.add(number)

    def _end(self, number: int, observation: Mapping[str, Any]) -> None:
        if number not in self.running:
            self.wrong.append(f"trial {number} ended twice, or never started")
        self.running.discard(number)
        if observation["status"] != TrialStatus.FAILED.value:
            self.counted[json.dumps(observation["configuration"], sort_keys=True)] += 1


def other_recommendation(usual: SearchRecord, found: SearchRecord) -> str:
    """How a recommendation differs from the usual one; empty where it does not.

    Another configuration is as good where the intervals of both overlap, in requests per dollar.
    """
    expected, got = recommend(usual), recommend(found)
    if not isinstance(expected, Recommendation) or not isinstance(got, Recommendation):
        return "there is no recommendation"
    if expected.configuration == got.configuration:
        return ""
    (low, high), (other_low, other_high) = _interval(expected), _interval(got)
    if low <= other_high and other_low <= high:
        return ""
    return (
        f"it recommends {got.configuration} with {other_low:.0f} to {other_high:.0f} requests per "
        f"dollar, and without the fault {expected.configuration} with {low:.0f} to {high:.0f}"
    )


def _interval(found: Recommendation) -> tuple[float, float]:
    """The 95 % interval of its score; the score alone where nothing is known of that."""
    measured, score = found.chosen.measurement, found.requests_per_dollar
    if measured is None or not measured.saturation_rps_ci_low:
        return score, score
    high = measured.saturation_rps_ci_high or measured.saturation_rps
    per_rps = score / found.requests_per_second
    return per_rps * measured.saturation_rps_ci_low, per_rps * high
