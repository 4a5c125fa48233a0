"""Trained networks of every kind as explanations look at them: an image in, a score of every class out."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.detector import Detector
from acmix.checkpoints.segmenter import Segmenter
from acmix.checkpoints.trained import TrainedNetwork
from acmix.models.dense import ObjectScores, PixelScores, normalised

_Trained = TypeVar("_Trained", bound=TrainedNetwork)


class View(ABC, Generic[_Trained]):
    """A trained network as explanations look at it.

    Args:
        trained: Computes wherever its model is; in evaluation mode from now on.

    Attributes:
        trained: As given.
        network: Whose layers are looked at, called with images `(B, C, H, W)`: the backbone, or all of a classifier.
        scorer: What evidence speaks for: such images to `(B, classes)`.
        title: What the scores of `scores` are.
    """

    title: ClassVar[str]
    network: nn.Module
    scorer: nn.Module

    def __init__(self, trained: _Trained) -> None:
        self.trained = trained
        trained.model.eval()

    @abstractmethod
    def tensor(self, image: Image.Image) -> Tensor:
        """What the layers are given of an RGB image, `(C, H, W)`, on the device."""

    def picture(self, tensor: Tensor) -> Image.Image:
        """The RGB picture of what `tensor` made."""
        return self.trained.as_seen(tensor)

    @abstractmethod
    def judged(self, answers: Tensor) -> Tensor | None:
        """A number 0..1 of every class, by answers `(classes,)` of the scorer; None if they do not tell it."""

    @abstractmethod
    def scores(self, tensor: Tensor) -> Tensor:
        """A number 0..1 of every class, `(classes,)`, without gradients."""

    def answers(self, tensor: Tensor) -> Tensor:
        """Of the scorer, `(classes,)`, in float32."""
        with torch.no_grad():
            return self.scorer(tensor[None])[0].float()

    def ranked(self, tensor: Tensor, top: int) -> tuple[list[tuple[str, float]], int]:
        """The best classes with their scores, at most all of them, and the index of the first."""
        scores = self.scores(tensor)
        values, indices = scores.topk(min(top, len(self.trained.classes)))
        names = [self.trained.classes[index] for index in indices.tolist()]
        return list(zip(names, values.tolist(), strict=True)), int(indices[0])


class _ClassifierView(View[Classifier]):
    title = "Most probable classes"

    def __init__(self, trained: Classifier) -> None:
        super().__init__(trained)
        self.network = self.scorer = trained.model

    def tensor(self, image: Image.Image) -> Tensor:
        return self.trained.transform(image).to(self.trained.device)

    def judged(self, answers: Tensor) -> Tensor:
        return self.trained.probabilities(answers)

    def scores(self, tensor: Tensor) -> Tensor:
        return self.judged(self.answers(tensor))


class _DetectorView(View[Detector]):
    title = "Surest object of each class"

    def __init__(self, trained: Detector) -> None:
        super().__init__(trained)
        model: Any = trained.model
        self.network, self.scorer = model.backbone.body, ObjectScores(model)

    def tensor(self, image: Image.Image) -> Tensor:
        model: Any = self.trained.model
        return normalised(model, self.trained.preprocess(image).to(self.trained.device))

    def picture(self, tensor: Tensor) -> Image.Image:
        mean, deviation = (tensor.new_tensor(self.trained.preprocessing[key])[:, None, None] for key in ("mean", "std"))
        return self.trained.as_seen(tensor * deviation + mean)

    def judged(self, answers: Tensor) -> Tensor:
        return answers

    def scores(self, tensor: Tensor) -> Tensor:
        return self.answers(tensor)


class _SegmenterView(View[Segmenter]):
    title = "Largest classes, by their share of the picture"

    def __init__(self, trained: Segmenter) -> None:
        super().__init__(trained)
        model: Any = trained.model
        self.network, self.scorer = model.backbone, PixelScores(model)

    def tensor(self, image: Image.Image) -> Tensor:
        model: Any = self.trained.model
        return model.continued(self.trained.preprocess(image).to(self.trained.device)[None])[0]

    def judged(self, answers: Tensor) -> None:
        """Mean logits are no shares."""
        del answers

    def scores(self, tensor: Tensor) -> Tensor:
        with torch.no_grad():
            labels = self.trained.model(tensor[None]).argmax(1)
        counts = labels.flatten().bincount(minlength=len(self.trained.classes))
        return counts / counts.sum()


_VIEWS: dict[type[TrainedNetwork], type[Any]] = {
    Classifier: _ClassifierView,
    Detector: _DetectorView,
    Segmenter: _SegmenterView,
}


def view_of(trained: TrainedNetwork) -> View[Any]:
    """How explanations look at a trained network."""
    return _VIEWS[type(trained)](trained)
