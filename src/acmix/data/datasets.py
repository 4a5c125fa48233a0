"""Open what a person calls DATA: class folders, webdataset shards, a saved dataset, or bundled digits."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from acmix.data.bundled import BUNDLED, Digits
from acmix.data.huggingface import has_saved, open_saved
from acmix.data.images import check_images as check_every_image
from acmix.data.labelled import LabelledImages, open_folder
from acmix.data.shards import has_shards, is_pattern, is_remote, list_folder, list_pattern, open_shards
from acmix.data.shards.urls import Listing, local_path
from acmix.data.sources import ImageSource, SplittableImages
from acmix.errors import InputError

_VALIDATION_NAMES = ("val", "validation", "test")
_KINDS = "give a folder of class folders, of shards or of a saved dataset, a pattern of shards, digits or mnist5k"


@dataclass(frozen=True)
class ImageData:
    """Training and validation images with one list of classes.

    Attributes:
        location: A name of `BUNDLED`, the absolute path of a folder, a pattern of shards, or the URL of their folder.
        train: Images to learn from, without a transform.
        validation: Images held out, without a transform.
        was_split: Whether validation was split off by seed, rather than having a place of its own.
        fingerprint: Of all images before a split; of the training images otherwise.
        validation_location: As location, where the validation images are not part of that data.
    """

    location: str
    train: ImageSource
    validation: ImageSource
    was_split: bool
    fingerprint: str
    validation_location: str | None = None


@dataclass(frozen=True)
class Parts:
    """What DATA holds, before anything is split.

    Attributes:
        location: As in `ImageData`.
        train: The training images, or all there are.
        validation: Images that have a place of their own, with the classes of train; None where there are none.
        validation_location: As location, where the validation images are not part of that data.
    """

    location: str
    train: ImageSource
    validation: ImageSource | None
    validation_location: str | None


def open_dataset(
    data: str,
    *,
    validation: str | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    check_images: bool = True,
    progress: bool = False,
) -> ImageData:
    """Open training and validation images and check them before any work starts.

    Args:
        data: `digits` or `mnist5k`; a folder with train/ and val/ (or validation/, or test/), each of class folders or
            webdataset shards; one folder of class folders, which is split; a folder or URL of shards with timm's
            `_info.json` or named by their split; a pattern of shards as in `s3://bucket/train-{000..127}.tar`, see
            `acmix.data.shards.urls.expand`; or a folder written by `save_to_disk` of Hugging Face's datasets.
        validation: Validation images, any of these, in place of those in data; shards without any need it.
        val_fraction: Share of each class held out where there are no validation images, between 0 and 1.
        seed: Seed of that split.
        check_images: Decode every file of class folders once. Shards and saved datasets are larger: `check_data`
            reads them.
        progress: Show a progress bar on stderr while checking, and while counting the images of shards.

    Raises:
        InputError: If the path is missing or holds no images, if there are no classes, empty class folders, classes
            on one side only, too few images to split, no validation images, or unreadable files.
    """
    parts = open_parts(data, validation=validation, progress=progress)
    train, held_out = parts.train, parts.validation
    was_split = held_out is None
    fingerprint = train.fingerprint()
    if held_out is None:
        if not isinstance(train, SplittableImages):
            raise InputError(
                f"{data} has no validation images, and shards are not split; give validation (--validation), "
                "the pattern or folder of the validation images"
            )
        train, held_out = train.split(val_fraction, seed)
    if check_images:
        check_files(train, held_out, progress=progress)
    return ImageData(parts.location, train, held_out, was_split, fingerprint, parts.validation_location)


def open_parts(data: str, *, validation: str | None = None, progress: bool = False) -> Parts:
    """Open images without splitting or checking them.

    Args:
        data: As in `open_dataset`.
        validation: As in `open_dataset`.
        progress: Show a progress bar on stderr while counting the images of shards.

    Raises:
        InputError: As in `open_dataset`.
    """
    location, found = _find(data)
    chosen = {"train": found["train"] if "train" in found else found.get("")}
    if chosen["train"] is None:
        raise InputError(
            f"{location} has {' and '.join(found)}/ but no train/; add it, or give one folder of class folders"
        )
    name = _validation_name(location, found)
    elsewhere = None
    if validation is not None:
        elsewhere, held = _find(validation)
        chosen["validation"] = _sole(elsewhere, held)
    elif name is not None:
        chosen["validation"] = found[name]
    elif "train" in found and isinstance(found["train"], LabelledImages):
        raise InputError(
            f"{location} has train/ but none of val/, validation/, test/; add one, "
            f"or give {Path(location) / 'train'} to have it split"
        )
    elif len(found) > 1:
        raise InputError(
            f"{location} has the parts {', '.join(found)}, none of them called {', '.join(_VALIDATION_NAMES)}; "
            "rename one, or give validation (--validation)"
        )
    opened = _open(chosen, progress)
    train, held_out = opened["train"], opened.get("validation")
    if isinstance(train, LabelledImages) and isinstance(held_out, LabelledImages):
        _check_same_classes(train, held_out, "validation" if validation is not None else str(name))
    elif held_out is not None and (unknown := sorted(set(held_out.classes) - set(train.classes))):
        raise InputError(f"the validation images have classes that the training images have not: {', '.join(unknown)}")
    if held_out is not None:
        held_out = held_out.with_classes(train.classes)
    return Parts(location, train, held_out, elsewhere)


def open_for_evaluation(data: str, *, progress: bool = False) -> tuple[str, ImageSource]:
    """Open the validation images of DATA, or all images where none have a place of their own.

    Args:
        data: As in `open_dataset`.
        progress: Show a progress bar on stderr while counting the images of shards.

    Returns:
        The location, as in `ImageData`, and the images.

    Raises:
        InputError: As in `open_dataset`.
    """
    location, found = _find(data)
    return location, _open({"images": _sole(location, found)}, progress)["images"]


def check_files(*sources: ImageSource, progress: bool = False) -> None:
    """Decode every file of class folders once; other sources are left to `check_data`.

    Args:
        *sources: Any images.
        progress: Show a progress bar on stderr.

    Raises:
        InputError: If files cannot be read.
    """
    folders = [source for source in sources if isinstance(source, LabelledImages)]
    check_every_image(
        [image for source in folders for image in source.images if isinstance(image, Path)], progress=progress
    )


# Shards are opened when it is known which parts share their classes.
_Found = ImageSource | Listing


def locate(data: str) -> str:
    """What to write down of DATA so that it is found again from another folder, see `ImageData`.

    Raises:
        InputError: If it is neither a pattern of shards, a URL nor an existing folder.
    """
    if data in BUNDLED or is_remote(data):
        return data
    if is_pattern(data) and not Path(data).expanduser().is_dir():
        return "::".join(part if is_remote(part) else str(local_path(part)) for part in data.split("::"))
    return str(existing_folder(data))


def _find(data: str) -> tuple[str, dict[str, _Found]]:
    """The location of DATA, and its parts by name; the only part of undivided data is called ""."""
    location = locate(data)
    if location in BUNDLED:
        return location, {"": BUNDLED[location]()}
    root = Path(location)
    if not root.is_dir():
        return location, {"": list_pattern(location)} if is_pattern(location) else dict(list_folder(location))
    if has_saved(root):
        return location, dict(open_saved(root))
    if has_shards(root):
        return location, dict(list_folder(location))
    folders = {name: root / name for name in ("train", *_VALIDATION_NAMES) if (root / name).is_dir()}
    return location, {name: _find_part(folder) for name, folder in (folders or {"": root}).items()}


def _find_part(folder: Path) -> _Found:
    return _sole(str(folder), dict(list_folder(str(folder)))) if has_shards(folder) else open_folder(folder)


def _sole(location: str, found: Mapping[str, _Found]) -> _Found:
    """The validation part, else the only one."""
    name = _validation_name(location, found)
    if name is None and len(found) > 1:
        raise InputError(
            f"{location} has the parts {', '.join(found)}, none of them called {', '.join(_VALIDATION_NAMES)}"
        )
    return found[next(iter(found)) if name is None else name]


def _validation_name(location: str, found: Mapping[str, _Found]) -> str | None:
    names = [name for name in _VALIDATION_NAMES if name in found]
    if {"val", "validation"} <= set(names):
        raise InputError(f"{location} has both val/ and validation/; keep one of them")
    return names[0] if names else None


def _open(parts: Mapping[str, _Found | None], progress: bool) -> dict[str, ImageSource]:
    listings = {name: part for name, part in parts.items() if isinstance(part, Listing)}
    sources = {name: part for name, part in parts.items() if isinstance(part, ImageSource)}
    return sources | open_shards(listings, progress=progress)


def existing_folder(data: str) -> Path:
    """The absolute path of an existing folder, or an InputError that says what is wrong."""
    root = Path(data).expanduser()
    if not root.exists():
        raise InputError(f"DATA {data!r} does not exist; {_KINDS}")
    if not root.is_dir():
        raise InputError(f"DATA {data!r} is not a folder; {_KINDS}")
    return root.resolve()


def _check_same_classes(train: LabelledImages, validation: LabelledImages, name: str) -> None:
    faults = [
        f"only in {side}: {', '.join(sorted(extra))}"
        for side, extra in (
            ("train/", set(train.classes) - set(validation.classes)),
            (f"{name}/", set(validation.classes) - set(train.classes)),
        )
        if extra
    ]
    if faults:
        raise InputError(f"train/ and {name}/ must have the same classes; {'; '.join(faults)}")


def export_digits(folder: str | Path, *, count: int = 20, val_fraction: float = 0.2, seed: int = 0) -> list[Path]:
    """Write held-out digits as PNG files named `INDEX-is-LABEL.png`, the classes in turn.

    Args:
        folder: Where to write; made if missing.
        count: How many images.
        val_fraction: As in training, so that no written image was trained on.
        seed: As in training.

    Returns:
        The files written.

    Raises:
        InputError: If count is not between 1 and the number of held-out digits.
    """
    _, held_out = Digits().split(val_fraction, seed)
    if not 1 <= count <= len(held_out):
        raise InputError(f"count must lie between 1 and {len(held_out)}, the held-out digits, got {count}")
    turns: Counter[int] = Counter()
    rank: list[tuple[int, int, int]] = []
    for index, label in enumerate(held_out.labels):
        rank.append((turns[label], label, index))
        turns[label] += 1
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for position, (_, label, index) in enumerate(sorted(rank)[:count]):
        image, _ = held_out[index]
        written.append(folder / f"{position:03d}-is-{label}.png")
        image.save(written[-1])
    return written
