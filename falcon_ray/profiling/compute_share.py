"""A part of a GPU's compute units, by CUDA's green contexts; needs CUDA 12.4 and torch 2.10.

The share that comes out is recorded as the units that were given, for hardware gives them in
groups. Memory and bandwidth are not divided. Nothing here runs on machines without CUDA.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from falcon_ray.errors import InputError

_GROUP = 8


@contextmanager
def compute_share(share: float, *, index: int = 0) -> Iterator[float]:
    """Run what is inside on a share of the GPU's streaming multiprocessors.

    Args:
        share: Wanted, in (0, 1].
        index: Of the GPU.

    Yields:
        The share that was given.

    Raises:
        InputError: The share is out of range, or this torch or GPU cannot be divided.
    """
    if not 0 < share <= 1:
        raise InputError(f"a compute share lies above 0 and up to 1, got {share!r}")
    if share == 1:
        yield 1.0
        return
    n_units = torch.cuda.get_device_properties(index).multi_processor_count
    n_given = max(_GROUP, _GROUP * round(share * n_units / _GROUP))
    try:
        from torch.cuda.green_contexts import GreenContext  # noqa: PLC0415 - not in torch < 2.10

        context = GreenContext.create(num_sms=n_given, device_id=index)
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"this GPU or torch {torch.__version__} cannot give a share of {share:g} of its units "
            f"({error}); leave the shares out"
        ) from error
    context.set_context()
    try:
        yield n_given / n_units
    finally:
        context.pop_context()
