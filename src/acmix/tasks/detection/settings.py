"""The settings of a detector's training; this module loads without timm."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from acmix.errors import InputError
from acmix.tasks.loop.fields import Range
from acmix.tasks.loop.placement import stages_of
from acmix.tasks.loop.settings import LoopSettings

Detector = Literal["retinanet", "fcos", "faster_rcnn", "mask_rcnn"]


@dataclass(frozen=True, kw_only=True)
class Settings(LoopSettings):
    """What decides the result of a detector's training, beside what every training has.

    Attributes:
        backbone: timm's name of the network whose features are used.
        acmix_stages: Stages of an ACmix-ResNet with the operator, 4 or 3,4 for instance, 0 for none; 3x3 convolutions
            stand in the others. None is all.
        pyramid_channels: Channels of every level of the feature pyramid.
        finest_stride: Pixels between cells of the pyramid's finest level; by default 8 of retinanet and fcos, else 4.
        pyramid_levels: How many levels, each half as fine as the one before; by default 5.
        head_convolutions: Convolutions before an answer, of masks where there are proposals.
        anchor_scale: Side of a level's smallest anchor in cells; by default 4 of retinanet, 1 of fcos, else 8.
        anchor_octaves: Sizes of anchors a level, of retinanet.
        image_size: Shorter side that images are resized to, in pixels.
        longest_side: The longer side at most, in pixels.
        flip: Probability that a training image is mirrored.
        smallest_scale: Least factor by which a training image is made larger, drawn at random; with largest_scale other
            than 1 it is cut or continued to a square of image_size.
        largest_scale: Largest such factor; 0.8 to 1.25 is scale jitter, 0.1 to 2 large-scale jitter.
        freeze_norms: Batch norms of the backbone keep their statistics, scales and shifts.
        drop_path: Share of the backbone's residual branches dropped, rising with depth to this; None is the
            backbone's own.
        score_threshold: The least score of what the network finds.
        overlap: Intersection over union from which on two finds of a class are one.
        most_detections: Finds an image.
    """

    task: ClassVar[str] = "detection"

    model: Detector
    backbone: str = "acmix_resnet26"
    acmix_stages: Annotated[int | str | None, Range(0, 4)] = None
    pyramid_channels: Annotated[int, Range(1, 4096)] = 256
    finest_stride: Annotated[int | None, Range(1, 64)] = None
    pyramid_levels: Annotated[int | None, Range(1, 8)] = None
    head_convolutions: Annotated[int, Range(1, 4)] = 4
    anchor_scale: Annotated[float | None, Range(1e-3, 1e3)] = None
    anchor_octaves: Annotated[int, Range(1, 16)] = 3
    image_size: Annotated[int, Range(32, 16384)] = 800
    longest_side: Annotated[int, Range(1, 16384)] = 1333
    flip: Annotated[float, Range(0, 1)] = 0.5
    smallest_scale: Annotated[float, Range(0, 10, above=True)] = 1.0
    largest_scale: Annotated[float, Range(0, 10, above=True)] = 1.0
    freeze_norms: bool = False
    drop_path: Annotated[float | None, Range(0, 1, below=True)] = None
    score_threshold: Annotated[float, Range(0, 1)] = 0.05
    overlap: Annotated[float, Range(0, 1)] = 0.5
    most_detections: Annotated[int, Range(1, 10_000)] = 100

    @property
    def network(self) -> str:
        """What is trained, in words."""
        return f"{self.model} on {self.backbone}"

    @property
    def jitters(self) -> bool:
        """Whether training images are drawn in other sizes."""
        return (self.smallest_scale, self.largest_scale) != (1, 1)

    def check(self) -> None:
        """Check every value that does not need the data or the network.

        Raises:
            InputError: If one is out of range.
        """
        super().check()
        stages_of(self.acmix_stages)
        if self.smallest_scale > self.largest_scale:
            raise InputError(
                f"smallest_scale must be at most largest_scale = {self.largest_scale}, got {self.smallest_scale}"
            )
        if self.longest_side < self.image_size:
            raise InputError(f"longest_side must be at least image_size = {self.image_size}, got {self.longest_side}")
