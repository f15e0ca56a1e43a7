"""Requests of the image models: pixels as bytes, as clients send them.

It knows pixels. It does not know any architecture.
"""

import torch
from torch import Tensor

from falcon_ray.profiling.zoo.synthetic import seeded

SIDE = 128


def pixels(batch_size: int, *, seed: int) -> Tensor:
    """Draw RGB images, white noise of shape (batch_size, 3, 128, 128), uint8."""
    with seeded(seed):
        return torch.randint(256, (batch_size, 3, SIDE, SIDE), dtype=torch.uint8)


def normalised(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes as numbers of mean 0 and variance 1, where the bytes are uniform."""
    return (x.to(dtype) - 127.5) / 73.9
