import inspect
import re

import pytest

from falcon_ray import errors
from falcon_ray.errors import (
    ClusterError,
    EmptySpaceError,
    FalconRayError,
    InfeasibleError,
    InputError,
    NothingFeasibleError,
    OverBudgetError,
    SearchInterruptedError,
    TrialError,
    TrialFailedError,
)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (FalconRayError, 1),
        (InputError, 2),
        (EmptySpaceError, 2),
        (NothingFeasibleError, 3),
        (ClusterError, 4),
        (SearchInterruptedError, 5),
        (OverBudgetError, 6),
    ],
)
def test_every_error_ends_a_command_with_its_own_exit_code(
    error: type[FalconRayError], exit_code: int
) -> None:
    assert error.exit_code == exit_code


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (InputError, ValueError),
        (EmptySpaceError, InputError),
        (InfeasibleError, TrialError),
        (TrialFailedError, TrialError),
    ],
)
def test_catching_the_parent_catches_the_child(
    error: type[FalconRayError], parent: type[Exception]
) -> None:
    with pytest.raises(parent, match="what happened"):
        raise error("what happened")


def test_an_infeasible_configuration_is_never_taken_for_a_failed_trial() -> None:
    assert not issubclass(InfeasibleError, TrialFailedError)
    assert not issubclass(TrialFailedError, InfeasibleError)


def test_the_tree_in_the_documentation_shows_every_error_with_its_exit_code() -> None:
    drawn = dict(re.findall(r"(\w+Error) +(\d?)", errors.__doc__ or ""))
    defined = {
        name: error
        for name, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, FalconRayError)
    }
    assert drawn.keys() == defined.keys()
    for name, exit_code in drawn.items():
        if exit_code:
            assert defined[name].exit_code == int(exit_code), name
