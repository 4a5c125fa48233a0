"""How a classifier fares on every single image, and how its layers share the work between their two paths."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from acmix import explain, ops
from acmix.checkpoints.classifier import Classifier
from acmix.data import ImageSource, image_loader
from acmix.nn import ACmix
from acmix.tasks.inference import best_device


@dataclass(frozen=True)
class Outcome:
    """What a classifier made of one labelled image.

    Attributes:
        index: Of the image in its source.
        label: The true class.
        prediction: The most probable class.
        probability: Of the prediction.
        loss: Cross-entropy.
    """

    index: int
    label: int
    prediction: int
    probability: float
    loss: float

    @property
    def right(self) -> bool:
        """Whether the most probable class is the true one."""
        return self.label == self.prediction


@dataclass(frozen=True)
class PathNorms:
    """Mean Euclidean norms of the two summands of one layer's output: alpha attention and beta convolution."""

    layer: str
    attention: float
    convolution: float

    @property
    def attention_share(self) -> float:
        """Of the sum of both norms, 0..1; one half if both are zero."""
        total = self.attention + self.convolution
        return self.attention / total if total else 0.5


def outcomes(classifier: Classifier, images: ImageSource, *, batch_size: int = 64, workers: int = 0) -> list[Outcome]:
    """Classify labelled images one by one.

    Args:
        classifier: Its model computes on the accelerator if there is one.
        images: Labelled in the order of the classifier's classes; the classifier's own transform is applied.
        batch_size: Images at a time.
        workers: Processes that read images; 0 reads in this one.

    Raises:
        InputError: If an image cannot be read.
    """
    device = best_device()
    model = classifier.model.eval().to(device)
    loader = image_loader(images.with_transform(classifier.transform), batch_size=batch_size, workers=workers)
    found: list[Outcome] = []
    with torch.inference_mode():
        for batch, labels in loader:
            logits = model(batch.to(device)).float().cpu()
            losses = nn.functional.cross_entropy(logits, labels, reduction="none")
            probabilities, predictions = logits.softmax(1).max(1)
            columns = (tensor.tolist() for tensor in (labels, predictions, probabilities, losses))
            for values in zip(*columns, strict=True):
                found.append(Outcome(len(found), *values))
    classifier.model.cpu()
    return found


def confusion_matrix(found: list[Outcome], classes: int) -> list[list[int]]:
    """Counts, row = true class, column = predicted class."""
    matrix = [[0] * classes for _ in range(classes)]
    for outcome in found:
        matrix[outcome.label][outcome.prediction] += 1
    return matrix


def path_norms(network: nn.Module, images: Tensor) -> list[PathNorms]:
    """What either path adds to the output of every ACmix layer, in the order of the network.

    Args:
        network: It is run once, without gradients, in the mode it is in.
        images: Shape `(B, C, H, W)`.
    """
    norms: list[PathNorms] = []
    for name, features in explain.layer_inputs(network, images).items():
        layer = cast(ACmix, network.get_submodule(name))
        alpha, beta = layer.rate_attention, layer.rate_convolution
        # The operator is linear in its rates: without the other's, a path is what it adds.
        parts = ((alpha, torch.zeros_like(beta)), (torch.zeros_like(alpha), beta))
        norms.append(PathNorms(name, *(_norm(layer, features, *rates) for rates in parts)))
    return norms


def _norm(layer: ACmix, features: Tensor, alpha: Tensor, beta: Tensor) -> float:
    with torch.no_grad():
        output = ops.mix(
            layer.qkv(features).unflatten(1, (3 * layer.heads, -1)),
            layer.position_weight,
            layer.fc_weight,
            layer.dep_weight,
            alpha,
            beta,
            window=layer.kernel_att,
            stride=layer.stride,
            dilation=layer.dilation,
            backend=layer.backend,
        )
    return float(output.flatten(1).norm(dim=1).mean())
