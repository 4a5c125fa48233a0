"""What the values of masks stand for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acmix.data.masks.legends import Legend
from acmix.data.sources import label_map
from acmix.errors import InputError

# The label of a pixel of which nothing is said.
IGNORED = -1
# What masks of 8 bits hold where they say nothing, unless a class has it.
_USUAL = 255
# Values that are named in an error, and classes that values alone may make.
_NAMED, _MOST_CLASSES = 5, 1_000


@dataclass(frozen=True)
class Coding:
    """What the values of masks stand for.

    Attributes:
        classes: Class names in the order of the labels.
        values: Of masks that stand for a class; colours as 0xRRGGBB.
        labels: Of each value, into classes.
        ignored: Values that say nothing.
        colours: Whether masks are coloured.
        hint: What a person may have meant where a value stands for nothing, to end an error.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...]
    labels: tuple[int, ...]
    ignored: tuple[int, ...] = ()
    colours: bool = False
    hint: str = ""

    def decode(self, values: NDArray[np.generic]) -> NDArray[np.int16]:
        """Labels of mask values of any shape; `IGNORED` where they say nothing.

        Raises:
            ValueError: If a value stands for nothing.
        """
        known = np.array([*self.values, *self.ignored], np.int64)
        order = np.argsort(known)
        places = order[np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)]
        if (wrong := known[places] != values).any():
            raise ValueError(self._unknown(values[wrong]))
        return np.array([*self.labels, *[IGNORED] * len(self.ignored)], np.int16)[places]

    def _unknown(self, values: NDArray[np.generic]) -> str:
        found, counts = np.unique(values, return_counts=True)
        named = ", ".join(self.described(int(value)) for value in found[:_NAMED]) + ", ..." * (len(found) > _NAMED)
        what = ("colour" if self.colours else "value") + ("s" if len(found) > 1 else "")
        return f"its mask has the {what} {named} in {counts.sum():,} pixels, which stand for no class{self.hint}"

    def described(self, value: int) -> str:
        """A mask value in words."""
        return f"#{value:06x}" if self.colours else str(value)

    def with_classes(self, classes: Sequence[str]) -> "Coding":
        """The same values, labelled in the order of other classes.

        Raises:
            InputError: If a class is not among them.
        """
        positions = label_map(self.classes, classes)
        return replace(self, classes=tuple(classes), labels=tuple(positions[label] for label in self.labels))

    @property
    def words(self) -> str:
        """What says nothing, in words; empty where all values stand for a class."""
        return ", ".join(map(self.described, self.ignored))


def coding(legend: Legend | None, ignore: int | str | None, found: Callable[[], NDArray[np.int64]]) -> Coding:
    """What mask values stand for, as a file of classes, a person and the masks themselves say.

    Args:
        legend: Of the file of classes; None without one.
        ignore: The value that says nothing, or the name that it has as a class; None where nobody said.
        found: All values of all masks, read when they must be known.

    Raises:
        InputError: If it cannot be known what a value stands for, or there are fewer than two classes.
    """
    if isinstance(ignore, int) and not 0 <= ignore <= 65_535:
        raise InputError(f"ignore_value must be 0 to 65535, got {ignore}")
    if legend is None:
        made = _of_values(found(), ignore)
    elif legend.values is None:
        made = _of_names(legend, ignore, found)
    else:
        made = _of_map(legend, legend.values, ignore)
    if len(made.classes) < 2:
        raise InputError(f"masks must show at least two classes, got {', '.join(made.classes) or 'none'}")
    return made


def _of_values(values: NDArray[np.int64], ignore: int | str | None) -> Coding:
    if isinstance(ignore, str):
        raise InputError(f"ignore_value must be a number where no file names classes, got {ignore!r}")
    if (most := values.max(initial=0)) in (_USUAL, 65_535) and ignore != most:
        raise InputError(
            f"ignore_value must be given: masks have the value {most}, which may be a class or say nothing "
            f"(--ignore-value {most}); a file classes.txt with a line VALUE NAME for each class makes it a class"
        )
    if len(values) > _MOST_CLASSES:
        raise InputError(f"masks have {len(values):,} different values, more than {_MOST_CLASSES:,}: are they masks?")
    kept = tuple(value for value in values.tolist() if value != ignore)
    return Coding(tuple(map(str, kept)), kept, tuple(range(len(kept))), () if ignore is None else (ignore,))


def _of_map(legend: Legend, values: Sequence[int], ignore: int | str | None) -> Coding:
    if isinstance(ignore, str):
        if ignore not in legend.names:
            raise InputError(f"ignore_value must be a class of {legend.file}, or a value, got {ignore!r}")
        ignore = values[legend.names.index(ignore)]
    elif ignore is not None and legend.colours:
        raise InputError(f"ignore_value must name a class of {legend.file}, which is of colours, got {ignore}")
    usual = legend.ignored or (() if legend.colours or _USUAL in values else (_USUAL,))
    ignored = tuple(dict.fromkeys(usual if ignore is None else (ignore, *usual)))
    kept = [(name, value) for name, value in zip(legend.names, values, strict=True) if value not in ignored]
    names = tuple(name for name, _ in kept)
    hint = f" of {legend.file}"
    return Coding(names, tuple(value for _, value in kept), tuple(range(len(kept))), ignored, legend.colours, hint)


def _of_names(legend: Legend, ignore: int | str | None, found: Callable[[], NDArray[np.int64]]) -> Coding:
    """Names without values stand for 0, 1, ...; for 1, 2, ... where 0 says nothing and masks show that they do."""
    count, first = len(legend.names), 0
    if ignore == 0:
        if max((value for value in found().tolist() if value != _USUAL), default=0) != count:
            raise InputError(
                f"ignore_value 0 leaves open whether the {count} names of {legend.file} stand for 1 to {count} or for "
                f"0 to {count - 1}: no mask has {count}; write VALUE NAME in each of its lines, or give the name of "
                "the class to ignore"
            )
        first = 1
    made = _of_map(legend, range(first, first + count), ignore)
    if ignore is not None:
        return made
    return replace(
        made,
        hint=f" of {legend.file}, whose names stand for 0 to {count - 1}; if they stand for 1 to {count} and 0 says "
        "nothing, give ignore_value 0 (--ignore-value 0)",
    )
