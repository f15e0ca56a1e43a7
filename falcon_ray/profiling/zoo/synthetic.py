"""Synthetic weights and images: seeded, and of the scale that real ones have.

It knows distributions. It does not know any architecture.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a CPU stream that `seed` alone determines, and restore the caller's afterwards.

    Build on the CPU (or on meta, which draws nothing) and move the result: draws made directly on
    another device do not follow `seed`.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the accelerators, and nothing would restore those.
        torch.default_generator.manual_seed(seed)
        yield


def draw_weights_(model: nn.Module, *, centring: float = 1.0) -> None:
    """Draw convolutions and linear layers so that signals keep their scale, and inputs differ.

    The scale is by He et al. (2015), "Delving Deep into Rectifiers", eq. 10: variance 2 / fan-in.
    Not fan-out: there torch counts every channel of a depthwise convolution instead of one, and
    signals fade.

    Filters then sum to zero over their input channels, after Brock et al. (2021), "Characterizing
    signal propagation to close the performance gap in unnormalized ResNets", section 4. Untrained
    batch norms normalise nothing, and the positive means that ReLU leaves would grow with depth
    until all images had nearly the same logits.

    Args:
        model: Changed in place.
        centring: Share of each filter's mean that is taken away. Less than all suits deep networks
            without shortcuts: with all, each layer magnifies what differs, rounding included.
    """
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        if layer.weight.shape[1] > 1:  # a depthwise filter would lose all it has
            with torch.no_grad():
                layer.weight -= centring * layer.weight.mean(dim=1, keepdim=True)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def images(batch_size: int, *, side: int, seed: int) -> Tensor:
    """Draw normalised RGB images, white noise of shape (batch_size, 3, side, side), float32."""
    with seeded(seed):
        return torch.randn(batch_size, 3, side, side)
