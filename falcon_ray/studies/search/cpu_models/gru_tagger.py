"""A tagger of sentences: bidirectional recurrent layers and a class per word.

The architecture is that of Huang et al. (2015), "Bidirectional LSTM-CRF Models for Sequence
Tagging", section 2.2, with the gated recurrent units of Cho et al. (2014), "Learning Phrase
Representations using RNN Encoder-Decoder", section 2.3, in place of LSTMs and without the CRF.
"""

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, seeded

_VOCABULARY = 20_000
_EMBEDDING = 128
_UNITS = 384
_LAYERS = 2
_TAGS = 45

_EXAMPLE_WORDS = 60


class GruTagger(nn.Module):
    """An embedding, two recurrent layers that read both ways, a classifier of every word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_VOCABULARY, _EMBEDDING)
        self.recurrent = nn.GRU(
            _EMBEDDING, _UNITS, num_layers=_LAYERS, batch_first=True, bidirectional=True
        )
        self.output = nn.Linear(2 * _UNITS, _TAGS)
        draw_weights_(self)

    def forward(self, word_ids: Tensor) -> Tensor:
        """Score every tag for every word.

        Args:
            word_ids: Word numbers below 20,000, int64, shape (batch, words).

        Returns:
            Logits, shape (batch, words, 45).
        """
        hidden, _ = self.recurrent(self.words(word_ids))
        return self.output(hidden)


def gru_tagger(seed: int = 0) -> GruTagger:
    """Build the tagger, untrained, in eval mode."""
    with seeded(seed):
        return GruTagger().eval()


def gru_tagger_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw word numbers, int64, shape (batch_size, 60)."""
    with seeded(seed):
        return torch.randint(_VOCABULARY, (batch_size, _EXAMPLE_WORDS))
