"""Where images lie that a file names: within the data folder alone, whatever names and links say."""

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from acmix.data.folders import part_of
from acmix.data.images import is_hidden
from acmix.errors import InputError, printable

# Images that are looked for in every folder that may hold all of them.
_SAMPLE = 64


def as_path(name: str, root: Path | None = None) -> str:
    """A path within the data folder as people write it, with slashes, in its shortest form.

    Args:
        name: The path.
        root: The data folder; an absolute path within it is as good as one that begins there.

    Raises:
        InputError: If it leads out of the folder.
    """
    text = name.replace("\\", "/")
    if root is not None and os.path.isabs(text):
        text = text.removeprefix(f"{root.absolute()}/")
    path = PurePosixPath(text)
    if path.is_absolute() or PureWindowsPath(text).drive or ".." in path.parts or "\0" in text:
        raise InputError(
            f"{printable(repr(name))} is absolute or leads out of the data folder; name it as it lies in that folder"
        )
    return posixpath.normpath(text)


def is_named(path: Path) -> bool:
    """Whether there is such a file, or a link that should lead to one: that it does not is told when it is read."""
    return path.is_file() or path.is_symlink()


class Ground:
    """A data folder outside of which nothing is read.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._real = root, os.path.realpath(root)
        self._folders: dict[str, bool] = {}

    def holds(self, path: str | Path) -> bool:
        """Whether there is such a file.

        Raises:
            InputError: If a link on the way leads out of the data folder.
        """
        try:
            found = os.lstat(path)
        except (OSError, ValueError):
            return False
        folder = os.path.dirname(path)
        if folder not in self._folders:
            self._folders[folder] = self._within(os.path.realpath(folder))
        link = stat.S_ISLNK(found.st_mode)
        if not self._folders[folder] or (link and not self._within(os.path.realpath(path))):
            raise InputError(
                f"{path} leads out of {self.root} by a link; put the files themselves into the data folder"
            )
        return os.path.isfile(path) if link else stat.S_ISREG(found.st_mode)

    def _within(self, real: str) -> bool:
        return real == self._real or real.startswith(f"{self._real.rstrip(os.sep)}{os.sep}")

    def folder_of(self, file: Path, names: Sequence[str]) -> Path:
        """The folder within which the images of a file of annotations or labels have their names.

        Args:
            file: For instance `annotations/instances_train2017.json`.
            names: Of its images, of `as_path`.

        Raises:
            InputError: If none of a sample of them is anywhere, or they may be in several folders.
        """
        sample = names[:: max(1, len(names) // _SAMPLE)]
        for folders in _places(file, self.root):
            counts = {folder: sum(self.holds(folder / name) for name in sample) for folder in folders}
            best = [folder for folder, count in counts.items() if count and count == max(counts.values())]
            if len(best) > 1:
                raise InputError(f"its images may be in {best[0]} or in {best[1]}; keep one of them")
            if best:
                return best[0]
        raise InputError(f"its images are nowhere in {self.root}, such as {printable(sample[0])}")


def words_of(file: Path) -> str:
    """What a file of annotations calls its images: `train2017` of `instances_train2017.json`; Roboflow's its folder."""
    stem = file.stem.removeprefix("instances_")
    return file.parent.name if stem.startswith("_annotations") else stem


def _places(file: Path, root: Path) -> Iterator[list[Path]]:
    """Folders where images may lie, most likely ones first; of those in one list none is more likely."""
    word = words_of(file)
    part = part_of(word)
    for folder in (root / word, root / "images" / word):
        yield [folder / "images"]
        yield [folder]
    near = [folder for base in (root, root / "images") for folder in _folders(base)]
    if part is not None:
        yield [inner for folder in near if part_of(folder.name) == part for inner in (folder, folder / "images")]
    yield [file.parent]
    yield [file.parent / "images"]
    yield [root / "images"]
    yield [root]
    # Images of another split may have the same names.
    yield [folder for folder in near if part_of(folder.name) is None and folder not in (root / "images", file.parent)]


def _folders(base: Path) -> list[Path]:
    try:
        return sorted(path for path in base.iterdir() if path.is_dir() and not is_hidden(path.name))
    except OSError:
        return []
