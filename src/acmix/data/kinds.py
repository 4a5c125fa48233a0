"""What kind of data DATA is, told by what lies there before anything is opened."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from acmix.data.annotated.finding import descriptions
from acmix.data.bundled import BUNDLED
from acmix.data.finding import existing
from acmix.data.folders import look, part_of
from acmix.data.huggingface import has_saved
from acmix.data.shards import has_shards, is_pattern, is_remote
from acmix.errors import InputError

Kind: TypeAlias = Literal["classification", "detection", "segmentation"]

# What lies in the folder of a split where it is no class.
_NO_CLASSES = frozenset(("images", "labels", "annotations", "masks"))


def kind_of(data: str) -> Kind:
    """What can be learned of DATA: the class of an image, the objects in it, or the class of every pixel.

    Raises:
        InputError: If it may be two of these, or is none.
    """
    if data in BUNDLED or is_remote(data) or (is_pattern(data) and not Path(data).expanduser().exists()):
        return "classification"
    root = existing(data)
    found: dict[Kind, str] = {kind: sign for kind, signs in _SIGNS.items() if (sign := signs(root))}
    if len(found) > 1:
        ways = " or of ".join(f"{kind} ({sign})" for kind, sign in found.items())
        raise InputError(f"{root} may be data of {ways}; say which with --task, or give the part that is meant")
    if found:
        return next(iter(found))
    if root.is_dir() and any(folder.direct or folder.classes for folder in look(root)):
        return "classification"
    raise InputError(
        f"{root} is no data to learn from: expected folders of classes with images in them, "
        "annotations/instances_*.json or data.yaml beside images, or images and masks in folders alike"
    )


def _classes(root: Path) -> str:
    """What tells that images have classes, other than that they lie in folders."""
    if root.is_file():
        return ""
    if has_saved(root) or has_shards(root):
        return "a saved dataset or shards"
    for folder in look(root):
        if has_shards(root / folder.name):
            return f"shards in {folder.name}/"
        if part_of(folder.name) and len(classes := folder.classes - _NO_CLASSES) > 1:
            return f"folders of classes in {folder.name}/, such as {min(classes)}/"
    return ""


def _objects(root: Path) -> str:
    """What tells that there are objects in images."""
    files = descriptions(str(root))
    return str(files[0].relative_to(root) if root.is_dir() else files[0]) if files else ""


# Each says what it tells a kind by, empty where nothing does.
_SIGNS: dict[Kind, Callable[[Path], str]] = {"classification": _classes, "detection": _objects}
