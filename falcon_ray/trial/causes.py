"""What the words of an error say about why a configuration cannot work.

The module knows how libraries say that memory ran out. It does not know who said so, or when.
"""

from falcon_ray.errors import InfeasibleCause

_MEMORY_WORDS = (
    "memoryerror",  # Python and NumPy
    "outofmemory",  # PyTorch's and Ray's error classes
    "out of memory",  # CUDA, and Ray's memory monitor
    "running low on memory",  # Ray's memory monitor
    "t allocate memory",  # PyTorch's CPU allocator and the C library's ENOMEM
    "std::bad_alloc",
)


def cause_of(message: str) -> InfeasibleCause:
    """MEMORY where an error, a traceback or Ray's memory monitor says so, else OTHER."""
    said = message.lower()
    if any(words in said for words in _MEMORY_WORDS):
        return InfeasibleCause.MEMORY
    return InfeasibleCause.OTHER
