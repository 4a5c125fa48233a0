"""What kind of data DATA is, told by what lies there before anything is opened."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from acmix.data.annotated.finding import descriptions, why_not
from acmix.data.bundled import BUNDLED
from acmix.data.finding import existing
from acmix.data.folders import look, part_of
from acmix.data.huggingface import has_saved
from acmix.data.idx import has_idx
from acmix.data.masks.finding import looks_masked
from acmix.data.shards import has_shards, is_pattern, is_remote
from acmix.data.tables import find_tables, has_table, is_table
from acmix.errors import InputError

Kind: TypeAlias = Literal["classification", "detection", "segmentation"]

_EXPECTED = (
    "expected folders of classes with images in them, a table of labels, shards, annotations/instances_*.json or "
    "data.yaml beside images, or images and masks in folders alike"
)
# What lies in the folder of a split where it is no class.
_NO_CLASSES = frozenset(("images", "labels", "annotations", "masks"))


def kinds_of(data: str) -> dict[Kind, str]:
    """What can be learned of DATA: the class of an image, the objects in it, the class of every pixel.

    Returns:
        For each what tells it: a file or folder. Several where DATA can be taken for several.

    Raises:
        InputError: If there is nothing to learn from.
    """
    if data in BUNDLED or is_remote(data) or (is_pattern(data) and not Path(data).expanduser().exists()):
        return {"classification": data}
    root = existing(data, _EXPECTED)
    found: dict[Kind, str] = {kind: sign for kind, signs in _SIGNS.items() if (sign := signs(root))}
    if found:
        return found
    if root.is_dir():
        if missing := why_not(root):
            raise InputError(f"{root} cannot be read: {missing}")
        for folder in look(root):
            if folder.direct or folder.classes:
                return {"classification": f"images in {folder.name}/"}
    raise InputError(f"{root} is no data to learn from: {_EXPECTED}")


def kind_of(data: str) -> Kind:
    """The kind of data that DATA is.

    Raises:
        InputError: If it may be several, or none.
    """
    found = kinds_of(data)
    if len(found) > 1:
        ways = " or of ".join(f"{kind} ({sign})" for kind, sign in found.items())
        raise InputError(f"{data} may be data of {ways}; give the file or the part that is meant")
    return next(iter(found))


def _classes(root: Path) -> str:
    """What tells that images have classes, other than that they lie in folders."""
    if root.is_file():
        return "a table of labels" if is_table(root) else "shards" if is_pattern(root.name) else ""
    if tables := find_tables(root):
        return f"{next(iter(tables.values())).name}, a table of labels"
    if has_saved(root) or has_idx(root) or has_shards(root):
        return "a saved dataset, IDX files or shards"
    for folder in look(root):
        if has_shards(root / folder.name):
            return f"shards in {folder.name}/"
        if part_of(folder.name) and has_table(root / folder.name):
            return f"a table of labels in {folder.name}/"
        if part_of(folder.name) and len(classes := folder.classes - _NO_CLASSES) > 1:
            return f"folders of classes in {folder.name}/, such as {min(classes)}/"
    return ""


def _objects(root: Path) -> str:
    """What tells that there are objects in images."""
    if is_table(root):
        return ""
    files = descriptions(str(root))
    return str(files[0].relative_to(root) if root.is_dir() else files[0]) if files else ""


def _masks(root: Path) -> str:
    """What tells that images have masks."""
    return looks_masked(root) if root.is_dir() else ""


# Each says what it tells a kind by, empty where nothing does.
_SIGNS: dict[Kind, Callable[[Path], str]] = {
    "classification": _classes,
    "detection": _objects,
    "segmentation": _masks,
}
