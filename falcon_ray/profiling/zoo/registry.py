"""The names of the reference models, and where each is built.

The registry knows names and import paths. It does not know torch: the command line lists the names
without loading it, and a path is resolved, by `pkgutil.resolve_name`, only where a model is built.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_ZOO = "falcon_ray.profiling.zoo"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceModel:
    """A model that can be built by name, without weights to download.

    Attributes:
        name: What users type.
        factory: "module:function" of a function `(seed: int = 0) -> nn.Module`, in eval mode.
        description: One line for people who choose from the list.
    """

    name: str
    factory: str
    description: str

    def __post_init__(self) -> None:
        """Check the form of the path only: resolving it would load torch."""
        module, separator, function = self.factory.partition(":")
        if not (module and separator and function.isidentifier()):
            raise ValueError(
                f"factory must read 'module:function', got {self.factory!r}; "
                f"correct the row of {self.name!r} in REFERENCE_MODELS"
            )

    @property
    def inputs(self) -> str:
        """Return "module:function" of a function that draws example inputs.

        It takes `(batch_size: int, seed: int = 0)` and returns one tensor, or a tuple of tensors
        that are the positional arguments of `forward`. The first dimension of each is the batch.
        """
        return f"{self.factory}_inputs"


REFERENCE_MODELS: Mapping[str, ReferenceModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            ReferenceModel(
                name="bert_base",
                factory=f"{_ZOO}.bert:bert_base",
                description="BERT-base uncased encoder with pooler, 109 M parameters, 128 tokens",
            ),
            ReferenceModel(
                name="dlrm",
                factory=f"{_ZOO}.dlrm:dlrm",
                description="DLRM of MLPerf, tables of 40,000 rows at most, 58.8 M parameters",
            ),
            ReferenceModel(
                name="gpt2",
                factory=f"{_ZOO}.gpt2:gpt2",
                description="GPT-2 small, next token of a prompt, 124 M parameters, 128 tokens",
            ),
            ReferenceModel(
                name="lstm",
                factory=f"{_ZOO}.lstm:lstm",
                description="Two-layer LSTM of 650 units, next word, 19.8 M parameters, 35 words",
            ),
            ReferenceModel(
                name="mobilenet_v3",
                factory=f"{_ZOO}.mobilenet_v3:mobilenet_v3",
                description="MobileNetV3-Large 1.0, 5.5 M parameters, images of 224 x 224",
            ),
            ReferenceModel(
                name="ncf",
                factory=f"{_ZOO}.ncf:ncf",
                description="NeuMF for MovieLens-20M, 31.8 M parameters, one user and item",
            ),
            ReferenceModel(
                name="resnet50",
                factory=f"{_ZOO}.resnet:resnet50",
                description="ResNet-50 v1.5, 25.6 M parameters, images of 224 x 224",
            ),
            ReferenceModel(
                name="unet_block",
                factory=f"{_ZOO}.unet:unet_block",
                description="UNet block of Stable Diffusion v1, 4.8 M parameters, 64 x 64 latents",
            ),
            ReferenceModel(
                name="vgg16",
                factory=f"{_ZOO}.vgg:vgg16",
                description="VGG-16, 138 M parameters, images of 224 x 224",
            ),
            ReferenceModel(
                name="vit_b_16",
                factory=f"{_ZOO}.vit:vit_b_16",
                description="ViT-B/16, 86.6 M parameters, images of 224 x 224",
            ),
        )
    }
)


def reference_model(name: str) -> ReferenceModel:
    """Look a reference model up by its name.

    Raises:
        ValueError: There is no such model; the message names the nearest one and lists them all.
    """
    if name in REFERENCE_MODELS:
        return REFERENCE_MODELS[name]
    nearest = difflib.get_close_matches(name.lower(), REFERENCE_MODELS, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    known = ", ".join(sorted(REFERENCE_MODELS))
    raise ValueError(f"unknown reference model {name!r}; {hint}choose one of {known}")
