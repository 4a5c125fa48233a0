"""Names without an object each: a list of a million texts is a million objects, which forked readers copy page by page.

Python counts references in the objects themselves, so that reading a text writes to its memory.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Self, overload

import numpy as np


class Names(Sequence[str]):
    """Texts in one buffer, each made when it is asked for.

    Any text comes back as it was: empty ones, line breaks, and the lone surrogates that stand for bytes of file names
    that are not UTF-8.

    Args:
        texts: In their order.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        buffer, offsets = bytearray(), array("q", [0])
        for text in texts:
            buffer += text.encode(errors="surrogatepass")
            offsets.append(len(buffer))
        self._buffer = bytes(buffer)
        places = np.asarray(offsets, np.int64)
        self._starts, self._stops = places[:-1], places[1:]

    def __len__(self) -> int:
        """Count the texts."""
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> "str | Self":
        """One text, or some of them."""
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return self._buffer[self._starts[index] : self._stops[index]].decode(errors="surrogatepass")

    def __eq__(self, other: object) -> bool:
        """Whether both are the same texts in the same order."""
        return list(self) == list(other) if isinstance(other, Names) else NotImplemented

    def take(self, indices: Sequence[int]) -> Self:
        """The texts at these indices, in this order and in the same buffer."""
        chosen = copy(self)
        places = np.asarray(indices, np.int64)
        chosen._starts, chosen._stops = self._starts[places], self._stops[places]
        return chosen


class Files:
    """Paths of files, each made when it is asked for.

    Args:
        root: A folder; the current one for paths that begin there or are absolute.
        names: Of the files within it.
    """

    def __init__(self, root: Path, names: Names) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        """Count the files."""
        return len(self.names)

    def __getitem__(self, index: int) -> Path:
        """One path."""
        return self.root / self.names[index]

    def __iter__(self) -> Iterator[Path]:
        """All paths."""
        return (self.root / name for name in self.names)

    def take(self, indices: Sequence[int]) -> "Files":
        """The files at these indices, in this order."""
        return Files(self.root, self.names.take(indices))
