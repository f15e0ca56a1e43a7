"""Ray's own failures as trial failures: what the infrastructure did is no lesson."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError

from falcon_ray.errors import TrialFailedError


@contextmanager
def ray_failures(doing: str) -> Iterator[None]:
    """Raise `TrialFailedError` where Ray fails inside the block.

    Args:
        doing: What was being done, for the message: "asking the replica for its facts".
    """
    try:
        yield
    except RayError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrialFailedError(f"{doing} failed: {type(error).__name__}: {first}") from error
    except TimeoutError as error:
        raise TrialFailedError(f"{doing} timed out") from error
