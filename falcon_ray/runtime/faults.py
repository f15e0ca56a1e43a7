"""Failures of Ray and of Serve as trial failures: what the infrastructure did is no lesson."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from falcon_ray.errors import TrialFailedError


@contextmanager
def ray_failures(doing: str) -> Iterator[None]:
    """Raise `TrialFailedError` where Ray or Serve fails inside the block, or a time-out passes.

    Args:
        doing: What was being done, for the message: "asking the replica for its facts".
    """
    try:
        yield
    except (RayError, RayServeException) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrialFailedError(f"{doing} failed: {type(error).__name__}: {first}") from error
    except TimeoutError as error:
        raise TrialFailedError(f"{doing} timed out") from error
