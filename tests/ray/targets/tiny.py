"""A user's file with models that take about a millisecond, and ones that go wrong in a replica.

The faulty factories work nowhere; tests hand them to a trial without the check that a search
makes first.
"""

import os
import threading

import torch
from torch import Tensor, nn

N_FEATURES = 256
N_GOOD_FORWARDS = 2
"""A replica runs the model twice before it answers: in float32, and in the dtype asked for."""


def tiny() -> nn.Module:
    return nn.Sequential(
        nn.Linear(N_FEATURES, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 8)
    )


def tiny_inputs(batch_size: int) -> Tensor:
    return torch.randn(batch_size, N_FEATURES, generator=torch.Generator().manual_seed(7))


def raising() -> nn.Module:
    raise RuntimeError("the weights of tiny are nowhere to be found")


def exiting() -> nn.Module:
    os._exit(3)


def hanging() -> nn.Module:
    threading.Event().wait()
    return tiny()


class _BreaksInService(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._model = tiny()
        self._n_forwards = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self._n_forwards += 1
        if self._n_forwards > N_GOOD_FORWARDS:
            raise ValueError("tiny broke in service")
        return self._model(inputs)


def breaking() -> nn.Module:
    return _BreaksInService()


raising_inputs = exiting_inputs = hanging_inputs = breaking_inputs = tiny_inputs
