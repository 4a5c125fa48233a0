"""What is known of an image: its class, or the set of its labels."""

from array import array
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Self, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from acmix.errors import InputError

# A label beyond is no number of a class but an identity, or damage.
_MOST_CLASSES = 10_000_000
# Index into the classes; in a multi-label source the indices of all labels of an image, ascending.
Label: TypeAlias = int | tuple[int, ...]


class LabelSets(Sequence[tuple[int, ...]]):
    """Sets of labels in one buffer, as `acmix.data.names.Names` are: each is made when it is asked for.

    Args:
        sets: The labels of each image, in any order.
    """

    def __init__(self, sets: Iterable[Iterable[int]]) -> None:
        labels, offsets = array("i"), array("q", [0])
        for each in sets:
            labels.extend(sorted(set(each)))
            offsets.append(len(labels))
        self._labels, places = labels, np.asarray(offsets, np.int64)
        self._starts, self._stops = places[:-1], places[1:]

    def __len__(self) -> int:
        """Count the sets."""
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> tuple[int, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> "tuple[int, ...] | Self":
        """One set, ascending, or some of them."""
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return tuple(self._labels[self._starts[index] : self._stops[index]])

    def take(self, indices: Sequence[int]) -> Self:
        """The sets at these indices, in this order and in the same buffer."""
        chosen = copy(self)
        places = np.asarray(indices, np.int64)
        chosen._starts, chosen._stops = self._starts[places], self._stops[places]
        return chosen


def numbered_classes(highest: int, whose: str) -> tuple[str, ...]:
    """Names of classes that are numbers from 0 on.

    Args:
        highest: Label.
        whose: What has it, as the subject of an error.

    Raises:
        InputError: If so many are no classes.
    """
    if highest >= _MOST_CLASSES:
        raise InputError(f"{whose} the label {highest:,}; labels count classes from 0")
    return tuple(map(str, range(highest + 1)))


def target_of(label: Label, classes: int) -> int | Tensor:
    """What a network is taught of an image: its class, or `(classes,)` in float32, 1 for each label."""
    if isinstance(label, int):
        return label
    target = torch.zeros(classes)
    target[list(label)] = 1
    return target


def relabelled(label: Label, places: Sequence[int]) -> Label:
    """A label in other classes, whose places there are given."""
    return places[label] if isinstance(label, int) else tuple(sorted(places[each] for each in label))


def taken(labels: Sequence[Label], indices: Iterable[int]) -> "array[int] | LabelSets":
    """The labels of some images, in buffers."""
    if isinstance(labels, LabelSets):
        return labels.take(list(indices))
    return array("i", (each for index in indices for each in labels_of(labels[index])))


def relabelled_all(labels: Sequence[Label], places: Sequence[int]) -> "array[int] | LabelSets":
    """The labels of images in other classes, whose places there are given, in buffers."""
    sets = ([places[each] for each in labels_of(label)] for label in labels)
    return LabelSets(sets) if isinstance(labels, LabelSets) else array("i", (each for one in sets for each in one))


def labels_of(label: Label) -> tuple[int, ...]:
    """All labels of an image, of either kind."""
    return (label,) if isinstance(label, int) else label


def in_words(label: Label, classes: Sequence[str]) -> str:
    """The names of an image's labels."""
    return ", ".join(classes[each] for each in labels_of(label)) or "no label"
