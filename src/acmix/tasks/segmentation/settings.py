"""The settings of a segmenter's training; this module loads without timm."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from acmix.errors import InputError
from acmix.tasks.loop.fields import Range
from acmix.tasks.loop.settings import LoopSettings

ClassWeights = Literal["balanced"]


@dataclass(frozen=True, kw_only=True)
class Settings(LoopSettings):
    """What decides the result of a segmenter's training, beside what every training has.

    Attributes:
        model: semantic_fpn, upernet or deeplabv3_plus.
        backbone: timm's name of the network that gives features.
        decoder_channels: Channels of the decoder; of semantic_fpn a multiple of 64.
        output_stride: 8 or 16 of deeplabv3_plus, whose backbone dilates its last stages; None is 16.
        ignore_value: Mask value that says nothing, or the name of the class that does, beside 255 and what the file of
            classes tells.
        dice: Weight of the Dice loss beside cross-entropy.
        class_weights: balanced lets every class count the same in the cross-entropy, however many pixels it has; it
            also swells the outlines of what is small.
        label_smoothing: Share of the target spread over all classes, 0 to below 1.
        quiet_shifts: ACmix layers start with small shifts, see `acmix.ACmix`; for ACmix-ResNets.
        drop_rate: Share of features dropped before the last layer; by default the decoder's own.
        drop_path: Share of the backbone's residual branches dropped, rising with depth to this.
        image_size: Side in pixels of the square crops that are learned from.
        short_side: Shorter side in pixels that images are scaled to, in training and ever after; None leaves images as
            they are.
        smallest_scale: Least factor by which images are scaled beside that in training.
        largest_scale: Greatest factor.
        turn: Greatest angle in degrees by which images are turned, either way; 180 where no side is the upper one.
        most_of_a_class: Share of a crop that one class may fill; of ten crops that do not keep to it the best is taken.
        flip: Probability that an image is mirrored.
        color_jitter: Strength of random brightness, contrast and saturation, a share of each.
    """

    task: ClassVar[str] = "segmentation"

    backbone: str = "acmix_resnet26"
    decoder_channels: Annotated[int, Range(1)] = 256
    output_stride: Annotated[int | None, Range(1)] = None
    ignore_value: Annotated[int | str | None, Range(0, 65_535)] = None
    dice: Annotated[float, Range(0)] = 0.0
    class_weights: ClassWeights | None = None
    label_smoothing: Annotated[float, Range(0, 1, below=True)] = 0.0
    quiet_shifts: bool = False
    drop_rate: Annotated[float | None, Range(0, 1, below=True)] = None
    drop_path: Annotated[float, Range(0, 1, below=True)] = 0.0
    image_size: Annotated[int, Range(1)] = 512
    short_side: Annotated[int | None, Range(1)] = None
    smallest_scale: Annotated[float, Range(0, above=True)] = 0.5
    largest_scale: Annotated[float, Range(0, above=True)] = 2.0
    turn: Annotated[float, Range(0, 180)] = 0.0
    most_of_a_class: Annotated[float, Range(0, 1, above=True)] = 0.75
    flip: Annotated[float, Range(0, 1)] = 0.5
    color_jitter: Annotated[float, Range(0, 1)] = 0.4

    @property
    def network(self) -> str:
        """What is trained, in words."""
        return f"{self.model} on {self.backbone}"

    def check(self) -> None:
        """Check every value that does not need the data or the network.

        Raises:
            InputError: If one is out of range.
        """
        super().check()
        if self.largest_scale < self.smallest_scale:
            raise InputError(
                f"largest_scale must be at least smallest_scale = {self.smallest_scale}, got {self.largest_scale}"
            )
