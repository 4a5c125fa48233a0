"""Images with a mask each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from acmix.data.folders import LeftOut
from acmix.data.images import ImageFacts, check_image, file_size, read_bytes
from acmix.data.masks.coding import Coding
from acmix.data.masks.pixels import MaskError, mask_values, picture_and_values
from acmix.data.names import Files, Names
from acmix.data.sources import NamedImages, hashed_order, read_in_threads
from acmix.data.splitting import check_count, check_fraction
from acmix.errors import InputError
from acmix.progress import Progress, silent


@dataclass(frozen=True)
class Pairs:
    """Files of images and of their masks, in one order.

    Attributes:
        names: What to call each image, unique and printable.
        images: Its file.
        masks: The file of its mask.
        left_out: What lies there and is no data.
    """

    names: Names
    images: Files
    masks: Files
    left_out: LeftOut

    def take(self, indices: Sequence[int]) -> "Pairs":
        """Those at these indices, in this order."""
        return replace(
            self, names=self.names.take(indices), images=self.images.take(indices), masks=self.masks.take(indices)
        )

    def values(self, *, colours: bool = False, progress: Progress = silent) -> NDArray[np.int64]:
        """All values that masks have; masks that cannot be read have none: they are told of when images are checked.

        Args:
            colours: As in `mask_values`.
            progress: Shows how far it is.
        """

        def read(index: int) -> NDArray[np.int32]:
            path = self.masks[index]
            try:
                return np.unique(mask_values(read_bytes(path), str(path), colours=colours)[0])
            except InputError:
                return np.zeros(0, np.int32)

        found: NDArray[np.int64] = np.zeros(0, np.int64)
        for values in progress(read_in_threads(read, range(len(self.names))), "reading masks", len(self.names)):
            found = np.union1d(found, values)
        return found


class MaskedImages(NamedImages, Dataset[tuple[Image.Image, NDArray[np.int16]]]):
    """Image files with masks. Item i is `read(i)`.

    A source can be pickled and forked; files are opened when they are needed, in each process by itself.

    Args:
        pairs: The files.
        coding: What the values of masks stand for.
    """

    checked = True

    def __init__(self, pairs: Pairs, coding: Coding) -> None:
        self.pairs, self.coding = pairs, coding
        self.classes, self.left_out = coding.classes, pairs.left_out

    def __len__(self) -> int:
        """Count the images."""
        return len(self.pairs.names)

    def name(self, index: int) -> str:
        """The image's path relative to the folder of images."""
        return self.pairs.names[index]

    def place(self, index: int) -> str:
        """The image's file."""
        return str(self.pairs.images[index])

    def files(self) -> Sequence[int]:
        """The indices of all images."""
        return range(len(self))

    def content(self, index: int) -> bytes:
        """The bytes of the image's file.

        Raises:
            InputError: If the file cannot be read.
        """
        return read_bytes(self.pairs.images[index])

    def mask(self, index: int) -> bytes:
        """The bytes of the mask's file.

        Raises:
            InputError: If it cannot be read.
        """
        return read_bytes(self.pairs.masks[index])

    def check(self, index: int, content: bytes) -> ImageFacts:
        """Decode an image and its mask once.

        Raises:
            InputError: If `read` would raise it.
        """
        self._read(index, content)
        return check_image(content, self.place(index))

    def read(self, index: int) -> tuple[Image.Image, NDArray[np.int16]]:
        """One image as 8-bit RGB (see `acmix.data.read_image`), and a label of each of its pixels.

        Returns:
            The image, and `(H, W)` of indices into classes, `IGNORED` where the mask says nothing.

        Raises:
            InputError: If one of them cannot be read or decoded, they differ in size, or a value stands for no class.
        """
        return self._read(index, self.content(index))

    def _read(self, index: int, content: bytes) -> tuple[Image.Image, NDArray[np.int16]]:
        path = self.pairs.masks[index]
        names = (self.place(index), str(path))
        picture, values = picture_and_values(content, self.mask(index), names, colours=self.coding.colours)
        try:
            return picture, self.coding.decode(values)
        except ValueError as error:
            raise MaskError("mask of values without a class", f"{error} ({path})", names[0]) from error

    def __getitem__(self, index: int) -> tuple[Image.Image, NDArray[np.int16]]:
        """Read one image."""
        return self.read(index)

    def choose(self, indices: Sequence[int]) -> "MaskedImages":
        """Return the images at these indices, in this order."""
        return MaskedImages(self.pairs.take(indices), self.coding)

    def with_classes(self, classes: Sequence[str]) -> "MaskedImages":
        """Return the same images, labelled in the order of other classes.

        Raises:
            InputError: If a class of these images is not among them.
        """
        return self if tuple(classes) == self.classes else MaskedImages(self.pairs, self.coding.with_classes(classes))

    def split(self, fraction: float, seed: int) -> tuple["MaskedImages", "MaskedImages"]:
        """Split into training and validation images by a hash of seed and name.

        Args:
            fraction: Share of the images for validation, between 0 and 1; at least one image stays on each side.
            seed: Another seed, another split.

        Raises:
            InputError: If the fraction is out of range or there are fewer than two images.
        """
        check_fraction(fraction)
        check_count(len(self))
        order = hashed_order(self, seed)
        cut = min(len(self) - 1, max(1, round(len(self) * fraction)))
        return self.choose(sorted(order[cut:])), self.choose(sorted(order[:cut]))

    def fingerprint(self) -> str:
        """SHA-256 of all names with the sizes of both files, and of what values stand for, wherever the data lie."""
        lines = sorted(
            f"{name}\t{file_size(image)}\t{file_size(mask)}"
            for name, image, mask in zip(self.pairs.names, self.pairs.images, self.pairs.masks, strict=True)
        )
        lines.append(f"{self.coding.classes}{self.coding.values}{self.coding.ignored}")
        return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()
