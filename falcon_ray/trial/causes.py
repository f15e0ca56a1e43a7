"""What the words of an error say about why a configuration cannot work.

The module knows how libraries say that memory ran out. It does not know who said so, or when.
"""

from falcon_ray.errors import InfeasibleCause


def cause_of(message: str) -> InfeasibleCause:
    """MEMORY where an error, a traceback or Ray's memory monitor says so, else OTHER."""
    if "MemoryError" in message or "out of memory" in message.lower():
        return InfeasibleCause.MEMORY
    return InfeasibleCause.OTHER
