"""All that there is to say about a trained network's answer to one image."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from acmix.checkpoints.trained import TrainedNetwork
from acmix.errors import InputError
from acmix.explain.attention import PixelAttention, pixel_attention
from acmix.explain.evidence import class_evidence
from acmix.explain.layers import operators
from acmix.explain.views import view_of


@dataclass(frozen=True, kw_only=True)
class ImageExplanation:
    """One image, explained.

    Attributes:
        picture: What the network sees, in RGB.
        tensor: The same, normalised, `(C, H, W)`.
        title: What scores are: "Most probable classes" of a classifier.
        scores: The best classes as (class, score), the best first: its probability; of a detector the score of its
            surest object; of a segmenter its share of the picture.
        attention: What the pixel attends to, layer by layer, for a batch of this one image.
        evidence: For and against the best class in the output of these layers, `(H_l', W_l')` each.
    """

    picture: Image.Image
    tensor: Tensor
    title: str
    scores: list[tuple[str, float]]
    attention: list[PixelAttention]
    evidence: list[Tensor]


def explain_image(
    trained: TrainedNetwork,
    image: Image.Image,
    *,
    pixel: tuple[int, int] | None = None,
    layers: list[str] | None = None,
    top: int = 5,
) -> ImageExplanation:
    """Look at what each layer did with an image: of a detector or segmenter the layers of the backbone.

    Args:
        trained: Computes wherever its model is.
        image: An RGB image of any size.
        pixel: Row and column in what the network sees, the centre by default.
        layers: Names of ACmix layers, all by default.
        top: How many classes, at most all of them.

    Raises:
        InputError: If the network has no ACmix layer or none of a given name, or the pixel lies outside.
    """
    view = view_of(trained)
    chosen = check_layers(view.network, layers)
    tensor = view.tensor(image)
    height, width = tensor.shape[-2:]
    if pixel is not None and not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise InputError(
            f"pixel must lie in the {height} x {width} pixels that the network sees, rows 0 to {height - 1} and "
            f"columns 0 to {width - 1}, got row {pixel[0]}, column {pixel[1]}"
        )
    scores, best = view.ranked(tensor, top)
    named, target = operators(view.network), torch.tensor([best], device=tensor.device)
    return ImageExplanation(
        picture=view.picture(tensor),
        tensor=tensor,
        title=view.title,
        scores=scores,
        attention=pixel_attention(view.network, tensor[None], pixel or (height // 2, width // 2), chosen),
        evidence=[class_evidence(view.scorer, tensor[None], target, named[name])[0].cpu() for name in chosen],
    )


def check_layers(network: nn.Module, layers: list[str] | None) -> list[str]:
    """The names of the ACmix layers that are meant, all by default.

    Raises:
        InputError: If the network has no ACmix layer or none of a given name.
    """
    named = operators(network)
    if unknown := [layer for layer in layers or () if layer not in named]:
        raise InputError(f"layer must be one of {', '.join(named)}, got {unknown[0]!r}")
    return layers or list(named)
