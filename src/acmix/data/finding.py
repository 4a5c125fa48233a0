"""Find what a person calls DATA: its parts and what they are called there, before any of them is opened."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from acmix.data.bundled import BUNDLED
from acmix.data.folders import LeftOut, beside, find_splits, look, part_of
from acmix.data.huggingface import has_saved, open_saved
from acmix.data.idx import has_idx, open_idx
from acmix.data.shards import has_shards, is_pattern, is_remote, list_folder, list_pattern
from acmix.data.shards.urls import Listing, local_path
from acmix.data.sources import ImageSource
from acmix.data.tables import TableFile, check_no_classes, find_tables, has_table, is_table, is_unlabelled
from acmix.errors import InputError

_EXPECTED = (
    "give a folder of class folders, of shards, of IDX files or of a saved dataset, a pattern of shards, a CSV file of "
    "image names and labels, digits or mnist5k"
)

# Class folders and tables are opened when it is known what for, shards when it is known which share their classes.
Content = ImageSource | Listing | Path | TableFile
# What a part holds: Content, or what other kinds of data are read by.
Held = TypeVar("Held")


@dataclass(frozen=True, kw_only=True, eq=False)
class PartOf(Generic[Held]):
    """One part of what DATA names, not yet opened; no two are equal.

    Attributes:
        name: What it is called there; empty where the data is undivided.
        words: What and where it is, for a person.
        content: Images, or the shards or the folder that hold them.
    """

    name: str
    words: str
    content: Held


@dataclass(frozen=True, kw_only=True)
class FoundOf(Generic[Held]):
    """What DATA names, not yet opened.

    Attributes:
        location: A name of `BUNDLED`, the absolute path of a folder or a table, a pattern of shards, or the URL of
            their folder.
        whole: All images, where the data is undivided.
        train: The training images.
        validation: The validation images.
        test: The test images.
        unlabelled: Test images that have no labels, so that nothing is measured on them.
        others: Parts of other names.
        left_out: What lies beside the parts.
    """

    location: str
    whole: PartOf[Held] | None = None
    train: PartOf[Held] | None = None
    validation: PartOf[Held] | None = None
    test: PartOf[Held] | None = None
    unlabelled: PartOf[Held] | None = None
    others: tuple[PartOf[Held], ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def usable(self) -> list[PartOf[Held]]:
        """All parts that can be opened."""
        parts = (self.whole, self.train, self.validation, self.test, *self.others)
        return [part for part in parts if part is not None]

    @property
    def names(self) -> list[str]:
        """What all parts are called there."""
        return [part.name for part in (*self.usable, self.unlabelled) if part is not None]

    def held_out(self) -> PartOf[Held]:
        """The validation part, else the only one.

        Raises:
            InputError: If there are several, none of them for validation.
        """
        if self.validation is not None:
            return self.validation
        if len(self.usable) > 1:
            raise InputError(
                f"{self.location} has the parts {', '.join(self.names)}, none of them called val or validation"
            )
        return self.usable[0]


Part: TypeAlias = PartOf[Content]
Found: TypeAlias = FoundOf[Content]


def find(data: str) -> Found:
    """Find the parts of DATA.

    Raises:
        InputError: If there is nothing, two parts are called by one split, or folders may be splits or classes.
    """
    location = locate(data)
    if location in BUNDLED:
        return _found(location, {"": BUNDLED[location]()})
    root = Path(location)
    if is_table(root):
        return _found(location, {"": TableFile(root)})
    if not root.is_dir():
        return _found(location, {"": list_pattern(location)} if is_pattern(location) else list_folder(location))
    if has_saved(root):
        return _found(location, open_saved(root))
    if has_idx(root):
        return _found(location, open_idx(root))
    if has_shards(root):
        return _found(location, list_folder(location))
    return _find_folders(root)


def _found(location: str, contents: Mapping[str, Content]) -> Found:
    """Tell parts by their names; the only part of undivided data is called ""."""
    names: dict[str, str] = {}
    for name in contents:
        split = part_of(name) or name
        if split in names:
            raise InputError(f"{location} has both {names[split]} and {name}, two names of one split; keep one of them")
        names[split] = name
    return by_split(location, {split: _part(location, name, contents[name]) for split, name in names.items()})


def by_split(location: str, parts: Mapping[str, PartOf[Held]]) -> FoundOf[Held]:
    """What was found, of parts by the split that each is: "" is undivided data."""
    others = [part for split, part in parts.items() if split not in ("", "train", "validation", "test")]
    return FoundOf(
        location=location,
        whole=parts.get(""),
        train=parts.get("train"),
        validation=parts.get("validation"),
        test=parts.get("test"),
        others=tuple(others),
    )


def _part(location: str, name: str, content: Content) -> Part:
    folder = Path(location, name)
    words = str(folder) if folder.is_dir() else f"{name} of {location}"
    return Part(name=name, words=words if name else location, content=content)


def _find_folders(root: Path) -> Found:
    folders = look(root)
    if tables := find_tables(root):
        check_no_classes(root, list(tables.values()), folders)
        return _of_tables(root, tables)
    sharded = {folder.name for folder in folders if has_shards(root / folder.name)}
    tabled = {folder.name for folder in folders if part_of(folder.name) and has_table(root / folder.name)}
    splits = find_splits(root, folders, sharded | tabled)
    if not splits:
        return _found(str(root), {"": root})
    left_out = beside(root, splits.values(), folders)
    # Test images without classes are aside as they are.
    direct = {folder.name for folder in folders if folder.direct} - tabled
    aside = splits.pop("test") if splits.get("test") in direct else None
    parts = {split: _part(str(root), name, _content(root / name)) for split, name in splits.items()}
    return replace(
        by_split(str(root), parts),
        unlabelled=None if aside is None else _part(str(root), aside, root / aside),
        left_out=left_out,
    )


def _of_tables(root: Path, tables: Mapping[str, Path]) -> Found:
    named = {
        split: Part(name=path.name if split else "", words=str(path), content=TableFile(path))
        for split, path in tables.items()
    }
    # A competition's images to predict have a table without labels.
    aside = named.pop("test") if "test" in named and is_unlabelled(tables["test"]) else None
    return replace(by_split(str(root), named), unlabelled=aside)


def _content(folder: Path) -> Content:
    """What the folder of a split holds."""
    if has_table(folder):
        return TableFile(find_tables(folder)[""])
    return _found(str(folder), list_folder(str(folder))).held_out().content if has_shards(folder) else folder


def locate(data: str) -> str:
    """What to write down of DATA so that it is found again from another folder, see `Found`.

    Raises:
        InputError: If it is neither a pattern of shards, a URL, a table nor an existing folder.
    """
    if data in BUNDLED or is_remote(data):
        return data
    if is_pattern(data) and not Path(data).expanduser().is_dir():
        return "::".join(part if is_remote(part) else str(local_path(part)) for part in data.split("::"))
    root = existing(data, _EXPECTED)
    return str(root if is_table(root) else existing_folder(data, _EXPECTED))


def existing_folder(data: str, expected: str) -> Path:
    """The absolute path of an existing folder, or an InputError that says what is wrong and what is expected."""
    root = existing(data, expected)
    if not root.is_dir():
        raise InputError(f"DATA {data!r} is not a folder; {expected}")
    return root


def existing(data: str, expected: str) -> Path:
    """The absolute path of an existing file or folder, or an InputError that says what is expected."""
    root = Path(data).expanduser()
    if not root.exists():
        raise InputError(f"DATA {data!r} does not exist; {expected}")
    return root.resolve()
