"""What a trial with a fault should say, what it said, and a line of the table that compares them.

It knows observations. It does not know how a fault is made.
"""

import re
from dataclasses import dataclass
from statistics import median

from falcon_ray.errors import InfeasibleCause
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.studies.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How a trial should end.

    Attributes:
        status: So.
        cause: Of which kind it is where it is infeasible.
        says: What its reason should match, as a regular expression.
        attempts: How often it should have been tried.
        within_s: How soon it should have ended; None for any time.
    """

    status: TrialStatus
    cause: InfeasibleCause = InfeasibleCause.OTHER
    says: str = ""
    attempts: int = 1
    within_s: float | None = None

    def differs(self, observation: Observation) -> str:
        """How an observation differs from it; empty where it does not."""
        got = observation
        wrong: list[str] = []
        if (got.status, got.cause) != (self.status, self.cause):
            wrong.append(f"{got.status.value} ({got.cause.value})")
        if not re.search(self.says, got.reason):
            wrong.append(f"does not say {self.says!r}")
        if got.attempts != self.attempts:
            wrong.append(f"{got.attempts} attempts, not {self.attempts}")
        seconds = got.times.deploy_s + got.times.warm_up_s + got.times.measure_s
        if self.within_s is not None and seconds > self.within_s:
            wrong.append(f"took {seconds:.1f} s")
        return f"{'; '.join(wrong)}: {got.reason or 'measured'}" if wrong else ""

    def __str__(self) -> str:
        """The class in words."""
        if self.status is not TrialStatus.INFEASIBLE:
            return self.status.value
        return f"{self.status.value} ({self.cause.value})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultOutcome:
    """What became of one fault that was made once.

    Attributes:
        wrong: How the trial differs from what it should have said; empty where it does not.
        leaks: What was left behind.
        wall_s: From the start to the end of the trial.
    """

    wrong: str
    leaks: tuple[str, ...]
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow:
    """One line of the table.

    Attributes:
        name: Of the fault.
        expected: Its class, in words.
        outcomes: One of every time that it could be made.
        next_trial: A healthy one after the last of them.
        not_here: Why it could not be made as often as it should have been; empty where it could.
    """

    name: str
    expected: str
    outcomes: tuple[FaultOutcome, ...] = ()
    next_trial: FaultOutcome | None = None
    not_here: str = ""

    @property
    def trials(self) -> tuple[FaultOutcome, ...]:
        """All of them, the healthy one included."""
        return self.outcomes if self.next_trial is None else (*self.outcomes, self.next_trial)

    @property
    def n_wrong(self) -> int:
        """How many trials said something else."""
        return sum(bool(each.wrong) for each in self.trials)

    @property
    def n_leaks(self) -> int:
        """How many things were left behind."""
        return sum(len(each.leaks) for each in self.trials)

    def figure(self) -> Figure:
        """The line as a figure with its goal."""
        if not self.outcomes:
            return Figure(name=self.name, value=0, note=f"not made: {self.not_here}")
        n = len(self.outcomes)
        seconds = median(each.wall_s for each in self.outcomes)
        told = [f"{self.expected}; {self.n_leaks} leaks; median {seconds:.1f} s"]
        told += [f"then not made: {self.not_here}"] * bool(self.not_here)
        told += [each.wrong for each in self.trials if each.wrong]
        told += [leak for each in self.trials for leak in each.leaks]
        return Figure(
            name=self.name,
            value=sum(not each.wrong for each in self.outcomes),
            unit=f"of {n}",
            at_least=n,
            note="; ".join(told),
        )
