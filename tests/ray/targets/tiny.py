"""A user's file with a model that takes about a millisecond, and one that cannot be made."""

import torch
from torch import Tensor, nn

N_FEATURES = 256


def tiny() -> nn.Module:
    return nn.Sequential(
        nn.Linear(N_FEATURES, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 8)
    )


def tiny_inputs(batch_size: int) -> Tensor:
    return torch.randn(batch_size, N_FEATURES, generator=torch.Generator().manual_seed(7))


def raising() -> nn.Module:
    raise RuntimeError("the weights of tiny are nowhere to be found")


raising_inputs = tiny_inputs
