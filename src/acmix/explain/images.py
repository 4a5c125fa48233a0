"""All that there is to say about a classifier's answer to one image."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from acmix.checkpoints.classifier import Classifier
from acmix.errors import InputError
from acmix.explain.attention import PixelAttention, pixel_attention
from acmix.explain.evidence import class_evidence
from acmix.explain.layers import operators


@dataclass(frozen=True, kw_only=True)
class ImageExplanation:
    """One image, explained.

    Attributes:
        picture: What the network sees, in RGB.
        tensor: The same, normalised, `(C, H, W)`.
        scores: The most probable classes as (class, probability), the most probable first.
        attention: What the pixel attends to, layer by layer, for a batch of this one image.
        evidence: For and against the most probable class in the output of these layers, `(H_l', W_l')` each.
    """

    picture: Image.Image
    tensor: Tensor
    scores: list[tuple[str, float]]
    attention: list[PixelAttention]
    evidence: list[Tensor]


def explain_image(
    classifier: Classifier,
    image: Image.Image,
    *,
    pixel: tuple[int, int] | None = None,
    layers: list[str] | None = None,
    top: int = 5,
) -> ImageExplanation:
    """Classify an image and look at what each layer did with it.

    Args:
        classifier: Computes wherever its model is.
        image: An RGB image of any size.
        pixel: Row and column in what the network sees (its input size), the centre by default.
        layers: Names of ACmix layers, all by default.
        top: How many classes, at most all of them.

    Raises:
        InputError: If the network has no ACmix layer, or `check_place` refuses.
    """
    model = classifier.model
    chosen = check_place(classifier, pixel, layers)
    tensor = classifier.transform(image).to(next(model.parameters()).device)
    height, width = tensor.shape[-2:]
    with torch.no_grad():
        probabilities = classifier.probabilities(model(tensor[None])[0].float())
    values, indices = probabilities.topk(min(top, len(classifier.classes)))
    attention = pixel_attention(model, tensor[None], pixel or (height // 2, width // 2), chosen)
    named = operators(model)
    evidence = [class_evidence(model, tensor[None], indices[:1], named[name])[0].cpu() for name in chosen]
    names = [classifier.classes[index] for index in indices.tolist()]
    return ImageExplanation(
        picture=classifier.as_seen(tensor),
        tensor=tensor,
        scores=list(zip(names, values.tolist(), strict=True)),
        attention=attention,
        evidence=evidence,
    )


def check_place(classifier: Classifier, pixel: tuple[int, int] | None, layers: list[str] | None) -> list[str]:
    """The names of the layers, once they and the pixel are known to exist.

    Raises:
        InputError: If the network has no ACmix layer or none of a given name, or the pixel lies outside of its input.
    """
    named = operators(classifier.model)
    if unknown := [layer for layer in layers or () if layer not in named]:
        raise InputError(f"layer must be one of {', '.join(named)}, got {unknown[0]!r}")
    height, width = classifier.preprocessing["input_size"][1:]
    if pixel is not None and not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise InputError(
            f"pixel must lie in the {height} x {width} pixels that the network sees, rows 0 to {height - 1} and "
            f"columns 0 to {width - 1}, got row {pixel[0]}, column {pixel[1]}"
        )
    return layers or list(named)
