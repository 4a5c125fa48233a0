"""Find folders of images and of their masks in what a person calls DATA."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os.path import realpath, splitext
from pathlib import Path, PurePath

from acmix.data.folders import LeftOut, images_within, part_of
from acmix.data.images import is_hidden
from acmix.data.masks.images import Pairs
from acmix.data.names import Files, Names
from acmix.data.places import is_named
from acmix.errors import InputError, printable

# What people call folders of images and of masks, without hyphens and underscores.
_IMAGES = re.compile(r"(?:raw)?(?:images?|imgs?|jpegimages|leftimg8bit|pictures?|pics?|photos?|rgb|inputs?)")
_MASKS = re.compile(
    r"(?:segmentation|semantic)?(?:masks?(?:png)?|annotations?|annots?|anns?|labels?|labelids?|gt|gtfine|gtcoarse"
    r"|groundtruths?|segmentations?|segs?|segmaps?|class(?:aug)?|targets?)"
)
# What masks and images are called beside the name that both have.
_OF_MASKS = re.compile(
    r"[-_. ](?:(?:gtfine|gtcoarse)_)?(?:masks?|labels?|label(?:train)?ids|gt|seg|segmentation|annotation|l|target)$",
    re.IGNORECASE,
)
_OF_IMAGES = re.compile(r"[-_. ](?:leftimg8bit|images?|imgs?|rgb|sat|pre)$", re.IGNORECASE)
# Cityscapes' other masks, and the one of two that training takes.
_OTHER_MASKS = re.compile(r"_gt(?:Fine|Coarse)_(?:color|instanceIds|instanceTrainIds)$")
_IDS, _TRAIN_IDS = "_labelIds", "_labelTrainIds"
_LISTS = PurePath("ImageSets", "Segmentation")
_LIST_NAMES = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where one part of the data lies.

    Attributes:
        root: The data; nothing outside of it is read.
        name: What the part is called there; empty where the data is undivided.
        images: Folder of the images.
        masks: Folder of their masks; None of images without masks.
        listed: A file of the names of the images that belong to it, in place of all.
    """

    root: Path
    name: str
    images: Path
    masks: Path | None
    listed: Path | None = None

    @property
    def words(self) -> str:
        """What and where it is, for a person."""
        return str(self.images if self.name and self.listed is None else self.root)


def find_masks(root: Path) -> dict[str, Folders]:
    """Find folders of images and masks in a folder; none where there are none of both.

    - `images/train/`, `masks/train/`, as ADE20K and Cityscapes lie; `train/images/`, `train/masks/`; `train/`,
      `train_masks/`;
    - `images/`, `masks/`, undivided;
    - VOC's `JPEGImages/`, `SegmentationClass/` with the lists of `ImageSets/Segmentation/`.

    Names of splits are those of `acmix.data.folders.part_of`.

    Returns:
        By "train", "validation", "test", or "" where the data is undivided; one without masks is among them.

    Raises:
        InputError: If two folders may be the images, the masks or one split.
    """
    named = _roles(root)
    whole = named.get("", {})
    if {"images", "masks"} <= whole.keys():
        images, masks = whole["images"], whole["masks"]
        return _of_lists(root, images, masks) or _of_parallel(root, images, masks)
    for several in (named, {part: _roles(folder).get("", {}) for part, folder in _splits(root).items()}):
        found = {
            part: Folders(root=root, name=_name(root, roles), images=roles["images"], masks=roles.get("masks"))
            for part, roles in several.items()
            if part and "images" in roles
        }
        if any(each.masks for each in found.values()):
            return found
    return {}


def _name(root: Path, roles: Mapping[str, Path]) -> str:
    """What a part is called: its own folder of images, or the folder that holds it."""
    images = roles["images"]
    return images.name if images.parent == root else images.parent.name


def _folders(root: Path) -> Iterator[Path]:
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error.strerror or error}") from error
    return (entry for entry in entries if not is_hidden(entry.name) and entry.is_dir())


def _roles(root: Path) -> dict[str, dict[str, Path]]:
    """Folders of a folder that are called as images or masks: by part, "" for none, and by "images" or "masks"."""
    found: dict[str, dict[str, Path]] = {}
    for folder in _folders(root):
        part, role = _part_and_role(folder.name)
        if role is None:
            continue
        known = found.setdefault(part, {})
        if role in known:
            raise InputError(f"{root} has both {known[role].name}/ and {folder.name}/, two folders of {role}; keep one")
        known[role] = folder
    # A folder with the name of a split alone holds the images of masks that lie beside it.
    for part, roles in found.items():
        if part and roles.keys() == {"masks"} and part in (splits := _splits(root)):
            roles["images"] = splits[part]
    return found


def _part_and_role(name: str) -> tuple[str, str | None]:
    text = re.sub(r"[\W_]+", "", name.casefold())
    for role, pattern in (("images", _IMAGES), ("masks", _MASKS)):
        if pattern.fullmatch(text):
            return "", role
        for both in (f"(.+?)(?:{pattern.pattern})", f"(?:{pattern.pattern})(.+)"):
            if (found := re.fullmatch(both, text)) and (part := part_of(found[1])):
                return part, role
    return "", None


def _splits(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _folders(root):
        part = part_of(folder.name)
        # `train_images` is of a split, but beside `train` it is not the split.
        if part is None or _part_and_role(folder.name)[1] is not None:
            continue
        if part in found:
            raise InputError(
                f"{root} has both {found[part].name}/ and {folder.name}/, two names of one split; keep one of them"
            )
        found[part] = folder
    return found


def _of_parallel(root: Path, images: Path, masks: Path) -> dict[str, Folders]:
    """Splits within the folder of images and the folder of masks, or both as a whole."""
    of_images, of_masks = _splits(images), _splits(masks)
    if not of_images.keys() & of_masks.keys():
        return {"": Folders(root=root, name="", images=images, masks=masks)}
    return {
        part: Folders(root=root, name=folder.name, images=folder, masks=of_masks.get(part))
        for part, folder in of_images.items()
    }


def _of_lists(root: Path, images: Path, masks: Path) -> dict[str, Folders]:
    lists = {part: root / _LISTS / name for part, name in _LIST_NAMES.items() if is_named(root / _LISTS / name)}
    if "train" not in lists:
        return {}
    return {
        part: Folders(root=root, name=path.stem, images=images, masks=masks, listed=path)
        for part, path in lists.items()
    }


def looks_masked(root: Path) -> str:
    """What tells that a folder holds images with masks: both, with names in common; empty where nothing does.

    Raises:
        InputError: As `find_masks`.
    """
    for part in find_masks(root).values():
        if part.masks is None:
            continue
        ignored = LeftOut()
        images, masks = (_within(folder, ignored) for folder in (part.images, part.masks))
        keys = {key(name) for name in images for key in (_stem, _key_of_image)}
        if any(_stem(name) in keys or _key_of_mask(name) in keys for name in masks):
            return f"masks in {part.masks.relative_to(root)}/"
    return ""


def find_pairs(folders: Folders) -> Pairs:
    """Every image of a part with its mask; images without a mask and masks without an image are left out.

    An image and its mask have one path within their folders, but for the suffix and words such as `_mask`.

    Args:
        folders: Of the part, with masks.

    Raises:
        InputError: If there is no pair, an image may have two masks or a mask two images, or a link leads out of the
            data.
    """
    if folders.masks is None:
        raise InputError(f"{folders.images} has no masks")
    left_out = LeftOut()
    images, masks = (_within(folder, left_out) for folder in (folders.images, folders.masks))
    for folder, names in ((folders.images, images), (folders.masks, masks)):
        _refuse_outside(folders.root, folder, names)
    kept = _of_kind(masks, left_out)
    wanted = None if folders.listed is None else _listed(folders.listed)
    if wanted is not None:
        images, kept = ([name for name in names if _stem(name) in wanted] for names in (images, kept))
    pairs = _paired(folders, images, kept)
    with_mask, with_image = {image for image, _ in pairs}, {mask for _, mask in pairs}
    for reason, names, found in (
        ("image without a mask", images, with_mask),
        ("mask without an image", kept, with_image),
    ):
        for name in names:
            if name not in found:
                left_out.add(reason, name)
    for name in sorted((wanted or set()) - {_stem(name) for name in images}):
        left_out.add(f"name in {printable(folders.listed)} without an image", name)
    if not pairs:
        raise InputError(
            f"no image in {folders.images} has a mask of its name in {folders.masks}: "
            f"{len(images):,} images, {len(kept):,} masks"
        )
    return Pairs(
        names=Names(printable(image) for image, _ in pairs),
        images=Files(folders.images, Names(image for image, _ in pairs)),
        masks=Files(folders.masks, Names(mask for _, mask in pairs)),
        left_out=left_out,
    )


def _within(folder: Path, left_out: LeftOut) -> list[str]:
    """Paths within a folder of the images in it."""
    return sorted(str(path.relative_to(folder)) for path in images_within(folder, left_out))


def _refuse_outside(root: Path, folder: Path, names: list[str]) -> None:
    """Refuse links that lead out of the data."""
    within = realpath(root)
    for name in ("", *names):
        if realpath(folder / name) != within and not realpath(folder / name).startswith(f"{within.rstrip('/')}/"):
            raise InputError(f"{folder / name} leads out of {root}, by a link; copy what is meant into it")


def _of_kind(masks: list[str], left_out: LeftOut) -> list[str]:
    """The masks that say which class a pixel is of, where others lie beside them."""
    stems = {_stem(name) for name in masks}
    kept: list[str] = []
    for name in masks:
        stem = _stem(name)
        second = stem.endswith(_IDS) and stem.removesuffix(_IDS) + _TRAIN_IDS in stems
        if _OTHER_MASKS.search(stem) or second:
            left_out.add("mask of another kind beside those of classes", name)
        else:
            kept.append(name)
    return kept


def _listed(path: Path) -> set[str]:
    """Names of images in a list, a line each."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    names = {line.strip() for line in lines} - {""}
    for name in sorted(names):
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise InputError(f"{path} names {name!r}, which leads out of the data; remove it")
    return names


def _stem(name: str) -> str:
    return splitext(name)[0]


def _key_of_image(name: str) -> str:
    return _OF_IMAGES.sub("", _stem(name))


def _key_of_mask(name: str) -> str:
    return _OF_MASKS.sub("", _stem(name))


def _paired(folders: Folders, images: list[str], masks: list[str]) -> list[tuple[str, str]]:
    """Images and masks of equal names; of the others those of equal names without what stands beside them."""
    pairs = _of_one_key(folders, _grouped(images, _stem), _grouped(masks, _stem))
    met_images, met_masks = {image for image, _ in pairs}, {mask for _, mask in pairs}
    rest = _grouped((name for name in images if name not in met_images), _key_of_image)
    return sorted(
        pairs + _of_one_key(folders, rest, _grouped((name for name in masks if name not in met_masks), _key_of_mask))
    )


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _of_one_key(
    folders: Folders, images: Mapping[str, list[str]], masks: Mapping[str, list[str]]
) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key in images.keys() & masks.keys():
        for what, folder, names in (("images", folders.images, images[key]), ("masks", folders.masks, masks[key])):
            if len(names) > 1:
                raise InputError(f"{folder} has {' and '.join(names)}, {what} of one name; keep one of them")
        pairs.append((images[key][0], masks[key][0]))
    return pairs
