"""The two verbs of every optimizer: `suggest` a configuration, `observe` how its trial ended.

A third, `withdraw`, takes back a suggestion that never became a trial.

An optimizer knows candidates, prices, the objective and past observations. It knows no
cluster, no clock, no file and no thread. Its state is the list of observations: feeding the
same list to a new one gives the same suggestions, as long as the same is ready.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.optimizers.stopping import Outlook
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What to try next, and why.

    Attributes:
        configuration: A candidate that was neither suggested nor observed before, or whose only
            trial the infrastructure broke.
        why: One line for people.
        expected: Predicted metrics by name; empty where the optimizer predicts nothing.
    """

    configuration: Configuration
    why: str
    expected: dict[str, float] = field(default_factory=dict[str, float])


class Optimizer(Protocol):
    """Proposes configurations and learns from how their trials ended."""

    def suggest(self, readiness: Readiness | None = None) -> Suggestion | None:
        """The next configuration to try, which counts as pending until it is observed.

        Args:
            readiness: What could start now. What cannot be had is suggested only when nothing
                else is left; whether an optimizer prefers what is ready among the rest is its
                own affair. None where nothing is known of that.

        Returns:
            None when every candidate was suggested or observed.

        Raises:
            InputError: The readiness speaks of another number of candidates.
        """
        ...

    def withdraw(self, configuration: Configuration) -> None:
        """Take a suggestion back whose trial never began, as no node came for it.

        It is as if it had never been suggested: nothing is held against the configuration.

        Raises:
            InputError: The configuration is not pending.
        """
        ...

    def observe(self, observation: Observation) -> None:
        """Learn from a trial; the configuration need not have been suggested.

        A FAILED trial teaches nothing, and its configuration may be suggested once more.
        """
        ...

    def recommend(self) -> Observation | None:
        """The best configuration among those measured and feasible; None when there is none."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether `suggest` has nothing left to propose."""
        ...


@runtime_checkable
class ForesightedOptimizer(Optimizer, Protocol):
    """An optimizer that says what is left to gain."""

    def outlook(self) -> Outlook | None:
        """What one more trial is expected to bring; None before the first feasible trial."""
        ...
