"""Datasets that Hugging Face's datasets saved on this machine."""

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from acmix.data.images import read_bytes
from acmix.data.labels import numbered_classes
from acmix.data.rows import RowImages
from acmix.data.sources import EncodedImage
from acmix.errors import InputError


class HuggingFaceImages(RowImages):
    """An image and a label column of a memory-mapped table.

    Args:
        table: A `datasets.Dataset`, its images not decoded.
        name: Of the split, with which names begin; empty where there is one table.
        image_column: Column of images.
        labels: Index into classes, one a row.
        classes: Class names in the order of the labels.
        rows: The rows that are taken, in order; None takes all.
    """

    def __init__(
        self,
        table: Any,
        name: str,
        image_column: str,
        labels: Sequence[int],
        classes: Sequence[str],
        rows: Sequence[int] | None = None,
    ) -> None:
        self.table, self.split_name, self.image_column = table, name, image_column
        self.rows = array("q", range(len(labels)) if rows is None else rows)
        self.labels, self.classes = array("i", (labels[row] for row in self.rows)), tuple(classes)

    def encoded(self, index: int) -> EncodedImage:
        """The bytes in the image column, or of the file that it names.

        Raises:
            InputError: If the row holds no image, or its file cannot be read.
        """
        stored = self.table[self.rows[index]][self.image_column] or {}
        content, path = stored.get("bytes"), stored.get("path")
        if content is None:
            if not path:
                raise InputError(f"{self.name(index)}: the row holds no image")
            content = read_bytes(path)
        return EncodedImage(content, PurePath(path or "").suffix.lower(), self.labels[index])

    def fingerprint(self) -> str:
        """SHA-256 of rows, labels, classes and the sizes of the table's files."""
        sizes = [Path(file["filename"]).stat().st_size for file in self.table.cache_files]
        return hashlib.sha256(repr((list(self.rows), list(self.labels), self.classes, sizes)).encode()).hexdigest()


def has_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    names = ("state.json", "dataset_info.json")
    return (folder / "dataset_dict.json").is_file() or all((folder / name).is_file() for name in names)


def open_saved(folder: Path) -> dict[str, HuggingFaceImages]:
    """Open all splits of a saved dataset, by name; a single table is the split "".

    Args:
        folder: Written by `save_to_disk` of `datasets.Dataset` or `DatasetDict`.

    Raises:
        InputError: If it cannot be read, or a table has not one image and one label column.
    """
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"the saved dataset {folder} cannot be read: {error}") from error
    tables = saved if isinstance(saved, datasets.DatasetDict) else {"": saved}
    return {str(name): _open_table(table, str(name), f"{folder}/{name}") for name, table in tables.items()}


def _open_table(table: Any, name: str, location: str) -> HuggingFaceImages:
    import datasets

    features = table.features
    image_column = _column(
        location, "image", [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    )
    named = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    plain = [
        key
        for key, kind in features.items()
        if isinstance(kind, datasets.Value) and (kind.dtype == "string" or "int" in kind.dtype)
    ]
    label_column = _column(location, "label", named or plain)
    labels, classes = _labels(features[label_column], table[label_column][:], f"{location}: column {label_column!r}")
    undecoded = table.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    return HuggingFaceImages(undecoded, name, image_column, labels, classes)


def _column(location: str, name: str, candidates: list[str]) -> str:
    """The only candidate, else the one with the name."""
    if len(candidates) != 1 and name not in candidates:
        found = f"it has {', '.join(candidates)}; name one of them {name!r}" if candidates else "it has none"
        raise InputError(f"{location} needs one {name} column; {found}")
    return candidates[0] if len(candidates) == 1 else name


def _labels(feature: Any, values: list[Any], what: str) -> tuple[list[int], list[str]]:
    classes = list(getattr(feature, "names", None) or [])
    if missing := sum(value is None or value == -1 for value in values):
        raise InputError(f"{what} has no label in {missing:,} of {len(values):,} rows")
    if not values:
        raise InputError(f"{what} has no rows")
    if feature.dtype == "string":
        classes = sorted(set(values))
        positions = {name: label for label, name in enumerate(classes)}
        values = [positions[value] for value in values]
    classes = classes or [*numbered_classes(max(values), f"{what} has")]
    if min(values) < 0 or max(values) >= len(classes):
        raise InputError(f"{what} has labels of {min(values)} to {max(values)} for {len(classes)} classes")
    if len(classes) < 2:
        raise InputError(f"{what} has one class, {classes[0]!r}; at least two are needed")
    return [int(value) for value in values], classes
