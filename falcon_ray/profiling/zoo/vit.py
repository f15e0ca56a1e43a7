"""ViT-B/16: Dosovitskiy et al. (2021), "An Image Is Worth 16x16 Words", section 3.1 and table 1.

Dropout is left out: serving never draws it.
"""

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.pre_norm import PreNormBlock
from falcon_ray.profiling.zoo.synthetic import draw_weights_, images, seeded

_SIDE = 224
_PATCH = 16
_LAYERS = 12
_WIDTH = 768
_HEADS = 12
_FEED_FORWARD_WIDTH = 3072

_LAYER_NORM_EPS = 1e-6
_EMBEDDING_STD = 0.02


class Vit(nn.Module):
    """ViT-Base: a class token before the patches, a stack of blocks, a classifier of that token."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _WIDTH, _PATCH, stride=_PATCH)
        self.class_token = nn.Parameter(torch.empty(1, 1, _WIDTH))
        self.positions = nn.Parameter(torch.empty(1, (_SIDE // _PATCH) ** 2 + 1, _WIDTH))
        self.blocks = nn.Sequential(
            *(
                PreNormBlock(
                    _WIDTH,
                    heads=_HEADS,
                    feed_forward_width=_FEED_FORWARD_WIDTH,
                    activation=nn.GELU(),
                    causal=False,
                    norm_eps=_LAYER_NORM_EPS,
                )
                for _ in range(_LAYERS)
            )
        )
        self.norm = nn.LayerNorm(_WIDTH, eps=_LAYER_NORM_EPS)
        self.classifier = nn.Linear(_WIDTH, classes)
        draw_weights_(self)
        nn.init.normal_(self.class_token, std=_EMBEDDING_STD)
        nn.init.normal_(self.positions, std=_EMBEDDING_STD)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, 224, 224) to logits (batch, classes)."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
        encoded = self.norm(self.blocks(tokens + self.positions))
        return self.classifier(encoded[:, 0])


def vit_b_16(seed: int = 0) -> Vit:
    """Build ViT-B/16 for ImageNet, 86,567,656 parameters, untrained, in eval mode."""
    with seeded(seed):
        return Vit().eval()


def vit_b_16_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw images, shape (batch_size, 3, 224, 224), float32."""
    return images(batch_size, side=_SIDE, seed=seed)
