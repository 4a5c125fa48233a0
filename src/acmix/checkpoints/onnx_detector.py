"""A detector's graph in ONNX Runtime in place of a network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from acmix.errors import InputError, in_one_line

_OUTPUTS = ("boxes", "scores", "labels")
_MASKS = "masks"


class OnnxDetector(nn.Module):
    """A detector's graph, which takes one image of one size, for images of every size.

    They are scaled to fit into that size, the sides' ratio kept, and continued with the mean. Square images have the
    scale of the network that the graph was made of; others are scaled to the size by their longer side where the
    network takes the shorter one, so that small objects of theirs are smaller.

    Args:
        session: Of `onnxruntime.InferenceSession`.
        mean: Of each channel, which the graph takes off.
        classes: How many there are.

    Shape:
        As `acmix.models.detectors.DetectionNetwork`: a list of `(3, H, W)`, uint8 or in 0..1, to one of detections.

    Raises:
        InputError: If the graph is of no detector.
    """

    def __init__(self, session: Any, mean: Sequence[float], classes: int) -> None:
        super().__init__()
        self.session, self.classes = session, classes
        inputs, self.names = session.get_inputs(), [each.name for each in session.get_outputs()]
        shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
        if len(shape) != 4 or shape[:2] != [1, 3] or not all(isinstance(side, int) for side in shape):
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise InputError(f"it must take one image, (1, 3, H, W) in float32, got {found}")
        if tuple(self.names) not in (_OUTPUTS, (*_OUTPUTS, _MASKS)):
            raise InputError(f"it must give {', '.join(_OUTPUTS)} and maybe {_MASKS}, got {', '.join(self.names)}")
        self.input, self.size = inputs[0].name, (shape[2], shape[3])
        self.mean = torch.tensor(mean)[:, None, None]

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Compute detections, image by image.

        Raises:
            InputError: If ONNX Runtime refuses one.
        """
        return [self._detect(image.detach().cpu()) for image in images]

    def _detect(self, image: Tensor) -> dict[str, Tensor]:
        image = image / 255 if image.dtype == torch.uint8 else image.float()
        sides = image.shape[-2:]
        share = min(most / side for most, side in zip(self.size, sides, strict=True))
        height, width = (max(1, round(side * share)) for side in sides)
        canvas = self.mean.expand(3, *self.size).clone()
        canvas[:, :height, :width] = functional.interpolate(image[None], (height, width), mode="bilinear")[0]
        try:
            answers = self.session.run(None, {self.input: canvas[None].numpy()})
        except Exception as error:  # ONNX Runtime has exceptions of its own
            reason = in_one_line(error)
            raise InputError(f"ONNX Runtime does not take an image {tuple(image.shape)}: {reason}") from error
        found = {name: torch.from_numpy(answer) for name, answer in zip(self.names, answers, strict=True)}
        found["boxes"] = _scaled(found["boxes"], (width / sides[1], height / sides[0]), sides)
        # Nothing is where the image was continued.
        there = (found["boxes"][:, 2:] > found["boxes"][:, :2]).all(1)
        if not ((found["labels"] >= 0) & (found["labels"] < self.classes)).all():
            raise InputError(f"ONNX Runtime gives labels beyond {self.classes} classes; export it again")
        if _MASKS in found:
            masks = found[_MASKS][:, :, :height, :width]
            found[_MASKS] = (
                functional.interpolate(masks, tuple(sides), mode="bilinear")
                if len(masks)
                else (masks.new_zeros(0, 1, *sides))
            )
        return {name: each[there] for name, each in found.items()}


def _scaled(boxes: Tensor, shares: tuple[float, float], sides: Sequence[int]) -> Tensor:
    """Boxes in pixels of the image, within it."""
    corners = (boxes.reshape(-1, 2, 2) / boxes.new_tensor(shares)).clamp(min=0)
    return corners.minimum(boxes.new_tensor((sides[1], sides[0]))).reshape(-1, 4)
