"""Find tables of labels in a folder, before any of them is read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from acmix.data.folders import Folder, part_of
from acmix.data.images import is_hidden
from acmix.data.tables.cells import is_table, read_rows
from acmix.errors import InputError

# Names of tables of all images, Roboflow's among them, and what stands in others beside the word for their split.
_WHOLE = frozenset(("labels", "annotations", "_classes"))
_ABOUT = re.compile("labels?|annotations?", re.IGNORECASE)
_IMAGES = re.compile("(images?|imgs?|pictures?|photos?|jpe?gs?|pngs?)", re.IGNORECASE)


@dataclass(frozen=True)
class TableFile:
    """A table of labels that is not yet read."""

    path: Path


def find_tables(root: Path) -> dict[str, Path]:
    """The tables in a folder by their split, "train", "validation" and "test", or "" for one of all images.

    Those are labels.csv (also annotations.csv, _classes.csv), train.csv, val.csv, test.csv and what else people call
    splits, as in `acmix.data.folders.part_of`; other tables are no data.

    Raises:
        InputError: If two are of one split, one is of all images beside those of splits, or the folder cannot be read.
    """
    try:
        tables = sorted(path for path in root.iterdir() if is_table(path) and not is_hidden(path.name))
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error.strerror or error}") from error
    found: dict[str, Path] = {}
    for path in tables:
        split = "" if path.stem.casefold() in _WHOLE else part_of(_ABOUT.sub("", path.stem))
        if split is None:
            continue
        if split in found:
            raise InputError(f"{root} has both {found[split].name} and {path.name}, two tables of one split; keep one")
        found[split] = path
    if "" in found and len(found) > 1:
        other = next(path for split, path in found.items() if split)
        raise InputError(f"{root} has both {found[''].name} and {other.name}; give one of these files as DATA")
    return found


def has_table(root: Path) -> bool:
    """Whether a folder has one table of all its images."""
    return set(find_tables(root)) == {""}


def is_unlabelled(path: Path) -> bool:
    """Whether a table names images alone."""
    return all(len(cells) == 1 for _, cells in islice(read_rows(path), 1))


def check_no_classes(root: Path, tables: Sequence[Path], folders: Sequence[Folder]) -> None:
    """Refuse tables that lie beside folders which may be classes.

    Args:
        root: That holds both.
        tables: The tables in it.
        folders: Its folders, of `acmix.data.folders.look`.

    Raises:
        InputError: If folders of splits hold folders of images, or two folders or more may be classes.
    """
    splits = [folder.name for folder in folders if part_of(folder.name) and folder.divided]
    classes = [
        folder.name
        for folder in folders
        if (folder.direct or folder.classes) and not part_of(folder.name) and not _IMAGES.fullmatch(folder.name)
    ]
    if splits or len(classes) > 1:
        what = f"{splits[0]}/ with folders of images" if splits else f"{classes[0]}/ and {classes[1]}/ with images"
        raise InputError(
            f"{root} has {tables[0].name} beside {what}: its images may have their labels from either; give "
            f"{tables[0].name} as DATA, or move it elsewhere"
        )
