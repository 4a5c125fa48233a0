"""Folders of images as people have them: what is in them, what is left out and why, and which of them are splits."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from acmix.data.images import is_hidden, is_image
from acmix.data.names import Names
from acmix.errors import InputError, counted, printable

# Splits by the words that people use for them; the order is that in which they are shown.
_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
}
# What people write around these words, besides the year of a release.
_AROUND = "(?:data|sets?|splits?|images?|imgs?|pics?|pictures?|photos?|samples?|folders?|dir|(?:19|20)[0-9]{2})*"
_NAMES = {part: re.compile(f"{_AROUND}(?:{'|'.join(words)}){_AROUND}") for part, words in _WORDS.items()}
# Names that are kept of what is left out for one reason.
_KEPT = 5

_HIDDEN, _DANGLING, _LOOP = "hidden", "link to nothing", "link to a folder above it"
_TWICE, _IRREGULAR = "folder met before in the same class", "file of a special kind"
_UNLABELLED, _BESIDE = "image in no class folder", "folder beside the splits"
# By its suffix.
NO_IMAGE = "file ending in {}"
# What an entry of a folder is, where it is not left out.
_IMAGE, _FOLDER = "image", "folder"


@dataclass
class LeftOut:
    """What is no data, or none to learn from, by the reason.

    A reason says what one thing is, its first word a noun in the singular, as in "box without area"; what it says is
    true of several. One word is an adjective.

    Attributes:
        counts: How many, by reason. A hidden folder counts as one.
        names: Of the first five of each reason, printable, within the data.
    """

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count one more, or so many of which the first is named."""
        if count:
            self.counts[reason] += count
            if len(known := self.names.setdefault(reason, [])) < _KEPT:
                known.append(printable(name))

    def join(self, others: "LeftOut", folder: str = "") -> None:
        """Count what was left out in a folder."""
        self.counts += others.counts
        for reason, names in others.names.items():
            known = self.names.setdefault(reason, [])
            known += [f"{folder}/{name}" if folder else name for name in names][: _KEPT - len(known)]

    def __str__(self) -> str:
        """All of it in one line: links are named, of the rest the first."""
        return ", ".join(
            self.words(reason, all_names=reason in (_DANGLING, _LOOP, _TWICE))
            for reason, _ in self.counts.most_common()
        )

    def words(self, reason: str, *, all_names: bool = True) -> str:
        """How many there are for a reason, the first or all that are known by name: 1 box without area (a)."""
        count, (noun, *rest) = self.counts[reason], reason.split(" ")
        number = counted(count, noun) if rest else f"{count:,} {noun}"
        shown = self.names[reason] if all_names else self.names[reason][:1]
        return f"{' '.join((number, *rest))} ({', '.join(shown)}{', ...' if count > len(shown) else ''})"


def part_of(name: str) -> str | None:
    """The split that a folder's name stands for, "train", "validation" or "test"; None for any other name.

    Case, hyphens, underscores and spaces do not count, nor do words such as set, data and images, nor a year:
    `Training`, `test_set`, `images-val`, `train2017`.
    """
    text = re.sub(r"[\W_]+", "", name.casefold())
    return next((part for part, names in _NAMES.items() if names.fullmatch(text)), None)


def part_within(name: str) -> str | None:
    """The split that one of the words of a longer name stands for, as in `seg_train`."""
    words = re.split(r"[\W_\d]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    found = {part for word in words if (part := part_of(word))}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Folder:
    """A folder within the data.

    Attributes:
        name: Of the folder.
        direct: Whether images lie directly in it.
        classes: Its own folders that hold images, at any depth.
    """

    name: str
    direct: bool
    classes: frozenset[str]

    @property
    def divided(self) -> bool:
        """Whether it looks like folders of classes: its images lie in folders of its own."""
        return bool(self.classes) and not self.direct


def look(root: Path) -> list[Folder]:
    """What kinds of folders a folder holds, hidden ones aside, by the first images that are found in them.

    Raises:
        InputError: If a folder cannot be read.
    """
    above = (os.path.realpath(root),)
    _, folders = _listed(str(root), above, LeftOut(), "")
    return [_look(os.path.join(root, name), (*above, real)) for name, real in folders]


def _look(folder: str, above: tuple[str, ...]) -> Folder:
    images, folders = _listed(folder, above, LeftOut(), "")
    inner = (name for name, real in folders if _holds_images(os.path.join(folder, name), (*above, real)))
    return Folder(os.path.basename(folder), bool(images), frozenset(inner))


def _holds_images(folder: str, above: tuple[str, ...]) -> bool:
    return next(_files(folder, above, set(), LeftOut(), ""), None) is not None


def find_splits(root: Path, folders: Sequence[Folder], sharded: Collection[str] = ()) -> dict[str, str]:
    """The folders of a root that are its splits, by "train", "validation" and "test"; none where they are classes.

    Splits are told from classes by their names and by what lies beside them. Folders called as splits, with folders of
    classes in them, are splits. A folder called `train` that holds images as the folders beside it do is a class.

    Args:
        root: The folder that holds them.
        folders: Of `look`.
        sharded: Names of those that hold shards in place of class folders.

    Raises:
        InputError: If two folders have names of one split, or if splits and classes lie side by side so that either may
            be meant.
    """
    named = {folder.name: part for folder in folders if (part := part_of(folder.name))}
    splits = [folder for folder in folders if folder.name in named and (folder.divided or folder.name in sharded)]
    others = [folder for folder in folders if (folder.direct or folder.classes) and folder.name not in named]
    if not splits:
        flat = [f"{folder.name}/" for folder in folders if folder.direct and folder.name in named]
        if flat and not others:
            raise InputError(f"{root} has {' and '.join(flat)} with images but without class folders in it; add them")
        return _find_longer_names(root, [folder for folder in others if folder.divided])
    alike = any(other.classes & split.classes for other in others for split in splits)
    if len(set(named.values())) == 1 and others and not alike:
        if all(other.divided for other in others):
            return {}
        raise InputError(
            f"{root} has {splits[0].name}/, which holds folders of images as a split does, beside {others[0].name}/, "
            "which holds images as a class does; move one of them elsewhere"
        )
    return _by_part(root, named)


def _by_part(root: Path, named: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, part in named.items():
        if part in found:
            raise InputError(f"{root} has both {found[part]}/ and {name}/, two names of one split; keep one of them")
        found[part] = name
    return found


def _find_longer_names(root: Path, divided: Sequence[Folder]) -> dict[str, str]:
    """Splits such as `seg_train` and `seg_test`: by a word of their names, where they hold the same classes."""
    named = {folder.name: part for folder in divided if (part := part_within(folder.name))}
    classes = [folder.classes for folder in divided if folder.name in named]
    if len(set(named.values())) < 2 or not frozenset.intersection(*classes):
        return {}
    return _by_part(root, named)


def beside(root: Path, splits: Collection[str], folders: Sequence[Folder]) -> LeftOut:
    """What lies in a folder of splits and is left out.

    Args:
        root: The folder.
        splits: Names of its folders that are splits.
        folders: All of them, of `look`.
    """
    left_out = LeftOut()
    for name in _listed(str(root), (os.path.realpath(root),), left_out, "")[0]:
        left_out.add(_UNLABELLED, name)
    for folder in folders:
        if folder.name not in splits and (folder.direct or folder.classes):
            left_out.add(_BESIDE, f"{folder.name}/")
    return left_out


def class_files(root: Path) -> tuple[dict[str, Names], LeftOut]:
    """The image files of every class folder, as paths within it, and what is left out.

    Links are followed, save those that dangle or lead back to a folder that holds them. Of a folder that links make
    appear twice in one class, the second appearance is left out.

    Args:
        root: A folder of class folders.

    Returns:
        By the name of the class folder, in the order of torchvision's `ImageFolder`; empty folders are among them.

    Raises:
        InputError: If a folder cannot be read, or there are splits within a class.
    """
    left_out, above = LeftOut(), (os.path.realpath(root),)
    images, folders = _listed(str(root), above, left_out, "")
    for name in images:
        left_out.add(_UNLABELLED, name)
    found: dict[str, Names] = {}
    for name, real in sorted(folders):
        files = sorted(_files(os.path.join(root, name), (*above, real), {real}, left_out, name))
        found[name] = Names(os.path.join(*file) for file in files)
    return found, left_out


def _files(
    folder: str, above: tuple[str, ...], met: set[str], left_out: LeftOut, within: str
) -> Iterator[tuple[str, str]]:
    """The images in a folder at any depth, each with the path within the data of the folder that it lies in.

    Args:
        folder: The folder.
        above: Real paths of the folders that lead here, this one included.
        met: Real paths of the folders that were entered, those to come included.
        left_out: Gets what is left out.
        within: Path of the folder within the data.
    """
    for place, inside, images, folders in _walk(folder, above, met, left_out, within):
        yield from ((inside, name) for name in images)
        parts = {part_of(name) for name in folders}
        if parts and None not in parts and parts != {"train"}:
            inner = " and ".join(f"{name}/" for name in folders)
            raise InputError(
                f"{place} holds {inner}, splits within a class; splits must hold classes, as in train/CLASS/IMAGE; "
                f"if {place} is all of the data, give it"
            )


def _walk(
    folder: str, above: tuple[str, ...], met: set[str], left_out: LeftOut, within: str
) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Every folder, at any depth: its path, that within the data, names of its images and of its folders."""
    images, folders = _listed(folder, above, left_out, within)
    yield folder, within, images, [name for name, _ in folders]
    for name, real in folders:
        inside = os.path.join(within, name)
        if real in met:
            left_out.add(_TWICE, inside)
            continue
        met.add(real)
        yield from _walk(os.path.join(folder, name), (*above, real), met, left_out, inside)


def find_images(
    paths: Iterable[str | Path], faults: list[str], *, recursive: bool = False, advice: str = ""
) -> list[Path]:
    """The image files that paths stand for, as they are given or in the folder that is given.

    Of folders hidden files, and links as in `class_files`, are left out.

    Args:
        paths: Image files; a folder stands for the image files directly in it, by name.
        faults: Gets one line for every folder that cannot be read or holds no image files, and for five links at most
            of each that lead to nothing.
        recursive: A folder stands for those at any depth, each folder's own before those of its folders.
        advice: What to do about a folder that holds images in its folders alone.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        left_out = LeftOut()
        try:
            files = images_within(path, left_out, recursive=recursive)
        except InputError as error:
            faults.append(str(error))
            continue
        faults += [f"{path / name}: the link leads to nothing" for name in left_out.names.get(_DANGLING, ())]
        if not files:
            directly = "" if recursive else f" directly in it{advice}"
            faults.append(f"{path}: the folder holds no image files{directly}")
        found += files
    return found


def images_within(folder: Path, left_out: LeftOut, *, recursive: bool = True) -> list[Path]:
    """The image files of a folder, as in `find_images`.

    Args:
        folder: The folder.
        left_out: Gets what is left out.
        recursive: At any depth.

    Raises:
        InputError: If a folder cannot be read.
    """
    real = os.path.realpath(folder)
    walked = _walk(str(folder), (real,), {real}, left_out, "")
    return [
        folder / inside / name for _, inside, images, _ in islice(walked, None if recursive else 1) for name in images
    ]


def _listed(
    folder: str, above: tuple[str, ...], left_out: LeftOut, within: str
) -> tuple[list[str], list[tuple[str, str]]]:
    """Names of the images in a folder, and names and real paths of its folders, links last."""
    images: list[str] = []
    folders: list[tuple[bool, str, str]] = []
    for entry in _entries(folder):
        kind = _kind(entry, above)
        if kind == _IMAGE:
            images.append(entry.name)
        elif kind == _FOLDER:
            link = entry.is_symlink()
            folders.append((link, entry.name, os.path.realpath(entry.path) if link else f"{above[-1]}/{entry.name}"))
        else:
            left_out.add(kind, os.path.join(within, entry.name))
    return images, [(name, real) for _, name, real in sorted(folders)]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error


def _kind(entry: os.DirEntry[str], above: tuple[str, ...]) -> str:
    """Whether an entry is an image or a folder, else why it is left out."""
    if is_hidden(entry.name):
        return _HIDDEN
    # DirEntry knows the kind of all but links without asking the disk; of links, os.path answers where DirEntry raises.
    path, link = entry.path, entry.is_symlink()
    if os.path.isdir(path) if link else entry.is_dir():
        return _LOOP if link and _leads_back(os.path.realpath(path), above) else _FOLDER
    if link and not os.path.exists(path):
        return _DANGLING
    if not (os.path.isfile(path) if link else entry.is_file()):
        return _IRREGULAR
    if is_image(entry.name):
        return _IMAGE
    suffix = printable(os.path.splitext(entry.name)[1].lower())
    return NO_IMAGE.format(suffix) if suffix else "file without a suffix"


def _leads_back(target: str, above: tuple[str, ...]) -> bool:
    return any(folder == target or folder.startswith(f"{target.rstrip('/')}/") for folder in above)
