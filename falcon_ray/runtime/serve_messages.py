"""What Serve's words about a deployment say: why it failed, and whether anything said why.

The module knows how Serve and Ray phrase a failure. It does not know what the failure means for
the configuration.
"""

import re

from falcon_ray.errors import InfeasibleCause
from falcon_ray.trial.causes import cause_of

DIED_WITHOUT_A_WORD = "its process ended without an error: it exited, crashed or was killed"

_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Exit)(:|$)")
_DEATH = re.compile(
    r"^\s*(ActorDiedError|ActorUnavailableError|WorkerCrashedError)\b", re.MULTILINE
)

_UNHEALTHY = re.compile(r"health check failed|failed its health check", re.IGNORECASE)


def cause(message: str) -> str:
    """The line of Serve's message that says what went wrong: the last error of its traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = _errors(message)
    if cause_of(message) is InfeasibleCause.MEMORY:
        return f"out of memory ({errors[-1] if errors else lines[-1]})"
    if errors:
        return errors[-1]
    if died_silently(message):
        return DIED_WITHOUT_A_WORD
    return lines[-1] if lines else "Serve gave no reason"


def died_silently(message: str) -> bool:
    """Whether all that is known is that a process ended, as after a crash, an exit or a kill."""
    return (
        _DEATH.search(message) is not None
        and not _errors(message)
        and cause_of(message) is not InfeasibleCause.MEMORY
    )


def lost_after_start(message: str) -> bool:
    """Whether a replica that had started was lost before all of them had."""
    return _UNHEALTHY.search(message) is not None and not _errors(message)


def _errors(message: str) -> list[str]:
    """The lines that end a traceback."""
    lines = [line.strip() for line in message.splitlines()]
    return [
        line
        for line in lines
        if _ERROR_LINE.match(line)
        and not line.endswith("(most recent call last):")
        and not _DEATH.match(line)
    ]
