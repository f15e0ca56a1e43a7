"""A word-level LSTM: Zaremba et al. (2014), "Recurrent Neural Network Regularization".

It is the medium network of section 4.1: two layers of 650 units over the 10,000 words of the Penn
Treebank, 35 words at a time. Dropout is left out: serving never draws it.
"""

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, seeded

_VOCABULARY = 10_000
_UNITS = 650
_LAYERS = 2

_EXAMPLE_WORDS = 35


class WordLstm(nn.Module):
    """The medium network: an embedding, two recurrent layers, a classifier of the next word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_VOCABULARY, _UNITS)
        self.recurrent = nn.LSTM(_UNITS, _UNITS, num_layers=_LAYERS, batch_first=True)
        self.output = nn.Linear(_UNITS, _VOCABULARY)
        draw_weights_(self)

    def forward(self, word_ids: Tensor) -> Tensor:
        """Score every word as the next one.

        Args:
            word_ids: Word numbers below 10,000, int64, shape (batch, words).

        Returns:
            Logits, shape (batch, 10000).
        """
        hidden, _ = self.recurrent(self.words(word_ids))
        return self.output(hidden[:, -1])


def lstm(seed: int = 0) -> WordLstm:
    """Build the medium LSTM, 19,780,400 parameters, untrained, in eval mode."""
    with seeded(seed):
        return WordLstm().eval()


def lstm_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw word numbers, int64, shape (batch_size, 35)."""
    with seeded(seed):
        return torch.randint(_VOCABULARY, (batch_size, _EXAMPLE_WORDS))
