import pytest

from falcon_ray.errors import InfeasibleCause
from falcon_ray.trial.causes import cause_of


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "memory"),
        ("MemoryError", "memory"),
        ("Task was killed due to the node running out of memory.", "memory"),
        ("ValueError: no kernel of size 7", "other"),
        ("", "other"),
    ],
)
def test_memory_that_ran_out_is_told_from_other_errors(message: str, cause: str) -> None:
    assert cause_of(message) is InfeasibleCause(cause)
