"""The fault table: every way to go wrong, made to happen for real, and what the trials said.

No accident of the infrastructure may look like a bad configuration, and no crash like a good one;
and whatever happens, nothing of a trial is left and the next one is served.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from falcon_ray.runtime.testbed.fault_site import FaultSite, fault_site
from falcon_ray.space.observation import TrialStatus
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.fault_cases import CASES, FaultCase, NotHereError
from falcon_ray.studies.measurement.fault_table import FaultOutcome, FaultRow
from falcon_ray.studies.measurement.killed_search import kill_and_resume
from falcon_ray.studies.measurement.options import MeasurementOptions


def figures(options: MeasurementOptions) -> list[Figure]:
    """Make every fault `options.repeat` times; right classes by fault, wrong ones and leaks."""
    with fault_site() as site:
        rows = list(table(site, repeat=options.repeat))
    return [*(row.figure() for row in rows), *totals(rows)]


def totals(rows: Sequence[FaultRow]) -> list[Figure]:
    """What the whole table comes to."""
    n_trials = sum(len(row.trials) for row in rows)
    missing = [row.name for row in rows if row.not_here]
    return [
        Figure(
            name="faults that could not be made here",
            value=len(missing),
            note=f"of {len(rows)}" + (f": {'; '.join(missing)}" if missing else ""),
        ),
        Figure(
            name="trials with the wrong class",
            value=sum(row.n_wrong for row in rows),
            at_most=0,
            note=f"of {n_trials}, with a healthy one after each fault",
        ),
        Figure(
            name="apps, actors, groups, processes and files left behind",
            value=sum(row.n_leaks for row in rows),
            at_most=0,
            note=f"after {n_trials} trials",
        ),
    ]


def table(site: FaultSite, *, repeat: int) -> Iterator[FaultRow]:
    """Make every fault `repeat` times, one after the other."""
    for case in CASES:
        outcomes, not_here = made(lambda: make(site, case), repeat=repeat)  # noqa: B023
        yield FaultRow(
            name=case.name,
            expected=str(case.expected),
            outcomes=outcomes,
            next_trial=_healthy(site) if outcomes else None,
            not_here=not_here,
        )
    yield FaultRow(
        name="the search's own process is killed",
        expected="resumed, nothing lost",
        outcomes=tuple(_observed(site, lambda: _killed_search(site)) for _ in range(repeat)),
    )


def made(
    make_once: Callable[[], FaultOutcome], *, repeat: int
) -> tuple[tuple[FaultOutcome, ...], str]:
    """The outcomes of a fault, up to the first time that it cannot be made, and why it cannot."""
    outcomes: list[FaultOutcome] = []
    for _ in range(repeat):
        try:
            outcomes.append(make_once())
        except NotHereError as error:
            return tuple(outcomes), str(error)
    return tuple(outcomes), ""


def make(site: FaultSite, case: FaultCase) -> FaultOutcome:
    """Make a fault once, and see what is said and what is left.

    Raises:
        NotHereError: It cannot be made on this machine.
    """
    return _observed(site, lambda: case.expected.differs(case.run(site)))


def _healthy(site: FaultSite) -> FaultOutcome:
    """The cluster serves the next trial."""

    def run() -> str:
        observation = site.run("healthy")
        if observation.status is TrialStatus.MEASURED:
            return ""
        return f"the next trial was not served: {observation.reason}"

    return _observed(site, run)


def _killed_search(site: FaultSite) -> str:
    with TemporaryDirectory(prefix="falcon-killed-") as directory:
        return kill_and_resume(site.address, Path(directory))


def _observed(site: FaultSite, run: Callable[[], str]) -> FaultOutcome:
    before = site.inventory()
    start_s = time.monotonic()
    wrong = run()
    wall_s = time.monotonic() - start_s
    return FaultOutcome(wrong=wrong, leaks=site.left_behind(before), wall_s=wall_s)
