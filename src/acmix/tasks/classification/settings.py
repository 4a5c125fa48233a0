"""The settings of a classifier's training; this module loads without timm."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

from acmix.errors import InputError
from acmix.tasks.loop.fields import Range
from acmix.tasks.loop.placement import stages_of
from acmix.tasks.loop.settings import LoopSettings

Loss = Literal["cross_entropy", "binary_cross_entropy"]
ClassWeights = Literal["balanced"]


@dataclass(frozen=True, kw_only=True)
class Settings(LoopSettings):
    """What decides the result of a classifier's training, beside what every training has.

    Attributes:
        model: timm's name of the network; by default acmix_resnet14_small for bundled digits, else acmix_resnet26.
        multi_label: Images of a table have any number of labels even where none has several yet.
        loss: Cross-entropy, or binary cross-entropy of each class; by default the first, of images that may have
            several labels the second, which alone is of meaning there.
        loss_threshold: With binary cross-entropy: mixed targets above it become one, others zero; None keeps them.
        class_weights: balanced lets every class count the same in the training loss, however many images it has: an
            image weighs images / (classes x images of its class), a mixed one the mean over its shares. Where images
            may have several labels, those that have a label weigh as much in its loss as those that have not.
        label_smoothing: Share of the target spread over all classes, 0 to below 1; of several labels, over yes and no.
        mixup: alpha of the Beta distribution that mixes images; 0 is off.
        cutmix: alpha of the Beta distribution that mixes areas; 0 is off. With mixup, one of both for each batch.
        random_augment: timm's policy, "rand-m7-mstd0.5-inc1" for instance; None for crops, flips and colours alone.
        random_erase: Probability that a rectangle of an image is erased.
        smallest_crop: Least share of an image's area that a random crop shows; None is 0.08, of bundled digits 0.7.
        flip: Probability that an image is mirrored; None is 0.5, of bundled digits 0.
        color_jitter: Strength of random brightness, contrast and saturation, a share of each; None is 0.4, of bundled
            digits 0, with random_augment 0.
        repeats: Copies of an image in an epoch, each augmented anew; an epoch keeps its number of images.
        acmix_stages: Stages of an ACmix-ResNet with the operator, 4 or 3,4 for instance, 0 for none; 3x3 convolutions
            stand in the others. None is all.
        quiet_shifts: ACmix layers start with small shifts, see `acmix.ACmix`; for ACmix-ResNets.
        drop_rate: Share of features dropped before the classifier; None is the network's own.
        drop_path: Share of residual branches dropped, rising with depth to this; None is the network's own.
        image_size: Side of the input in pixels; by default the model's own.
        crop_share: Side of the centre crop that is evaluated, a share of the image's; None is the model's own.
    """

    task: ClassVar[str] = "classification"

    multi_label: bool = False
    loss: Loss | None = None
    loss_threshold: Annotated[float | None, Range(0, 1, below=True)] = None
    class_weights: ClassWeights | None = None
    label_smoothing: Annotated[float, Range(0, 1, below=True)] = 0.1
    mixup: Annotated[float, Range(0)] = 0.0
    cutmix: Annotated[float, Range(0)] = 0.0
    random_augment: str | None = None
    random_erase: Annotated[float, Range(0, 1)] = 0.0
    smallest_crop: Annotated[float | None, Range(0, 1, above=True)] = None
    flip: Annotated[float | None, Range(0, 1)] = None
    color_jitter: Annotated[float | None, Range(0, 1)] = None
    repeats: Annotated[int, Range(1)] = 1
    acmix_stages: Annotated[int | str | None, Range(0, 4)] = None
    quiet_shifts: bool = False
    drop_rate: Annotated[float | None, Range(0, 1, below=True)] = None
    drop_path: Annotated[float | None, Range(0, 1, below=True)] = None
    image_size: Annotated[int | None, Range(1)] = None
    crop_share: Annotated[float | None, Range(0, 1, above=True)] = None

    def check(self) -> None:
        """Check every value that does not need the data or the network.

        Raises:
            InputError: If one is out of range.
        """
        super().check()
        stages_of(self.acmix_stages)
        if self.loss_threshold is not None and self.loss == "cross_entropy":
            raise InputError("loss_threshold is for loss binary_cross_entropy; leave it out, or choose that loss")
        if self.random_augment is not None and self.color_jitter:
            raise InputError("color_jitter is for images without random_augment, whose policies have it; leave one out")

    def suited(self, *, multi_label: bool) -> Self:
        """The settings with the loss that images ask for, where none was chosen.

        Args:
            multi_label: Whether images may have several labels.

        Raises:
            InputError: If the chosen loss, or what goes with another, is of no meaning there.
        """
        if multi_label and self.loss == "cross_entropy":
            raise InputError(
                "loss cross_entropy is of images with one label each, as its probabilities add up to 1; these may have "
                "several: leave it out, or choose binary_cross_entropy"
            )
        own = replace(self, loss=self.loss or ("binary_cross_entropy" if multi_label else "cross_entropy"))
        own.check()
        return own
