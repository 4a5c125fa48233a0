"""Open what a person calls DATA: class folders, webdataset shards, a saved dataset, or bundled digits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acmix.data.bundled import BUNDLED, Digits
from acmix.data.folders import LeftOut, beside, find_splits, look, part_of
from acmix.data.huggingface import has_saved, open_saved
from acmix.data.labelled import LabelledImages, open_folder
from acmix.data.shards import has_shards, is_pattern, is_remote, list_folder, list_pattern, open_shards
from acmix.data.shards.urls import Listing, local_path
from acmix.data.sources import ImageSource, SplittableImages, unknown_classes
from acmix.data.trained import examine, refuse_unreadable
from acmix.errors import InputError

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
        validation_fingerprint: Of the validation images, where they were not split off.
        measured: What the validation images are, in words.
        taken: What was taken for what, in words: "training", "validation", and "left aside", "left out" where
            something was.
    """

    location: str
    train: ImageSource
    validation: ImageSource
    was_split: bool
    fingerprint: str
    validation_location: str | None = None
    validation_fingerprint: str | None = None
    measured: str = ""
    taken: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """What DATA holds, before anything is split.

    Attributes:
        location: As in `ImageData`.
        train: The training images, or all there are.
        validation: Images that have a place of their own, with the classes of train; None where there are none.
        validation_location: As location, where the validation images are not part of that data.
        test: Images that are neither learned from nor chosen on; None where there are none, or none were asked for.
        taken: As in `ImageData`.
        left_out: What lies there and is no data.
    """

    location: str
    train: ImageSource
    validation: ImageSource | None
    validation_location: str | None
    test: ImageSource | None
    taken: dict[str, str]
    left_out: LeftOut


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

    Test images are neither trained on nor chosen on: where data has train/ and test/ but no val/, validation images are
    split off train/. Names of splits are those of `acmix.data.folders.part_of`, `Training` and `valid` among them.

    Args:
        data: `digits` or `mnist5k`; a folder with train/ and val/, or train/ and test/, each of class folders or
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
            in validation alone, too few images to split, no validation images, unreadable files, two folders of one
            split, or folders that may be splits or classes.
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
    return ImageData(
        location=parts.location,
        train=train,
        validation=held_out,
        was_split=was_split,
        fingerprint=fingerprint,
        validation_location=parts.validation_location,
        validation_fingerprint=None if was_split else held_out.fingerprint(),
        measured=held_out_of(parts.taken["training"]) if was_split else parts.taken["validation"],
        taken=_taken(parts, train, held_out, f"{val_fraction:.3g} of each class by seed {seed}"),
    )


def _taken(parts: Parts, train: ImageSource, held_out: ImageSource, split: str) -> dict[str, str]:
    """See `ImageData`; split says how images were held out where none had a place of their own."""
    whole = parts.taken["training"]
    taken = {"training": f"{whole}: {len(train):,} images of {len(train.classes)} classes ({_few(train.classes)})"}
    if parts.validation is None:
        taken["validation"] = f"{held_out_of(whole)}: {len(held_out):,} images, {split}"
    else:
        missing = _without_images(held_out)
        none = f", none of {len(missing)} classes ({_few(missing)})" if missing else ""
        taken["validation"] = f"{parts.taken['validation']}: {len(held_out):,} images{none}"
    if "left aside" in parts.taken:
        taken["left aside"] = parts.taken["left aside"]
    if parts.left_out.counts:
        taken["left out"] = str(parts.left_out)
    return taken


def held_out_of(name: str) -> str:
    """What was split off for validation, in words."""
    return f"the images of {name} that training held out"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _without_images(images: ImageSource) -> list[str]:
    """The classes without images, where that is known without reading them."""
    if not isinstance(images, SplittableImages):
        return []
    present = set(images.labels)
    return [name for label, name in enumerate(images.classes) if label not in present]


def open_parts(data: str, *, validation: str | None = None, test: bool = False, progress: bool = False) -> Parts:
    """Open images without splitting or checking them.

    Args:
        data: As in `open_dataset`.
        validation: As in `open_dataset`.
        test: Open the test images, too.
        progress: Show a progress bar on stderr while counting the images of shards.

    Raises:
        InputError: As in `open_dataset`.
    """
    found = find(data)
    whole = "train" if "train" in found.parts else ""
    if whole not in found.parts:
        names = " and ".join(f"{name}/" for name in found.names.values())
        raise InputError(f"{found.location} has {names} but no train/; add it, or give one folder of class folders")
    chosen, taken = {"train": found.parts[whole]}, {"training": found.called(whole)}
    elsewhere = None
    if validation is not None:
        held = find(validation)
        part = _validation_part(held)
        elsewhere, chosen["validation"], taken["validation"] = held.location, held.parts[part], held.called(part)
    elif "validation" in found.parts:
        chosen["validation"], taken["validation"] = found.parts["validation"], found.called("validation")
    elif set(found.names) == {"train"} and isinstance(found.parts["train"], Path):
        raise InputError(
            f"{found.location} has {found.names['train']}/ but none of val/, validation/, test/; add one, "
            f"or give {Path(found.location) / found.names['train']} to have it split"
        )
    elif others := set(found.parts) - {"", "train", "test"}:
        raise InputError(
            f"{found.location} has the parts {', '.join(found.names.values())}, none of them called val or validation; "
            f"rename {' or '.join(sorted(others))}, or give validation (--validation)"
        )
    if "test" in found.names:
        taken["left aside"] = f"{found.called('test')}, test images: not trained on, not chosen on"
    if test and "test" in found.parts:
        chosen["test"] = found.parts["test"]
    opened = open_found(chosen, progress)
    left_out = LeftOut()
    left_out.join(found.left_out)
    for part, images in opened.items():
        names = found.names if part != "validation" or elsewhere is None else {}
        left_out.join(images.left_out, names.get(part, ""))
        if part != "train":
            _check_classes(opened["train"], images, part, found.names.get("train", "train"), names.get(part, part))
            opened[part] = images.with_classes(opened["train"].classes)
    return Parts(
        location=found.location,
        train=opened["train"],
        validation=opened.get("validation"),
        validation_location=elsewhere,
        test=opened.get("test"),
        taken=taken,
        left_out=left_out,
    )


def _check_classes(train: ImageSource, images: ImageSource, part: str, train_name: str, name: str) -> None:
    if unknown := unknown_classes(images.classes, train.classes):
        missing = unknown_classes(train.classes, images.classes)
        sides = (
            f" (only in {train_name}/: {', '.join(missing)}; only in {name}/: {', '.join(unknown)})" if missing else ""
        )
        raise InputError(
            f"the {part} images have classes that the training images have not: {', '.join(unknown)}{sides}; "
            "rename or remove them"
        )


# Class folders are opened when it is known what for, shards when it is known which parts share their classes.
_Part = ImageSource | Listing | Path


@dataclass(frozen=True)
class Found:
    """What DATA names, not yet opened.

    Attributes:
        location: As in `ImageData`.
        parts: By "train", "validation" or "test", or by its own name; the only part of undivided data is called "".
        names: What the parts are called there, and test images without classes, which are no part.
        left_out: What lies beside the parts.
    """

    location: str
    parts: dict[str, _Part]
    names: dict[str, str]
    left_out: LeftOut = field(default_factory=LeftOut)

    def called(self, part: str) -> str:
        """A part in words."""
        if not self.names.get(part):
            return self.location
        folder = Path(self.location, self.names[part])
        return str(folder) if folder.is_dir() else f"{self.names[part]} of {self.location}"


def find(data: str) -> Found:
    """Find the parts of DATA.

    Raises:
        InputError: If there is nothing, two parts are called by one split, or folders may be splits or classes.
    """
    location = locate(data)
    if location in BUNDLED:
        return Found(location, {"": BUNDLED[location]()}, {})
    root = Path(location)
    if not root.is_dir():
        return _named(location, {"": list_pattern(location)} if is_pattern(location) else list_folder(location))
    if has_saved(root):
        return _named(location, open_saved(root))
    if has_shards(root):
        return _named(location, list_folder(location))
    return _find_folders(root)


def _named(location: str, parts: Mapping[str, _Part]) -> Found:
    names: dict[str, str] = {}
    for name in parts:
        part = part_of(name) or name
        if part in names:
            raise InputError(f"{location} has both {names[part]} and {name}, two names of one split; keep one of them")
        names[part] = name
    return Found(location, {part: parts[name] for part, name in names.items()}, names)


def _find_folders(root: Path) -> Found:
    folders = look(root)
    sharded = {folder.name for folder in folders if has_shards(root / folder.name)}
    splits = find_splits(root, folders, sharded)
    if not splits:
        return Found(str(root), {"": root}, {})
    left_out = beside(root, splits.values(), folders)
    # Test images without classes are aside as they are.
    unlabelled = {folder.name for folder in folders if folder.direct}
    parts = {part: _find_part(root / name) for part, name in splits.items() if part != "test" or name not in unlabelled}
    return Found(str(root), parts, splits, left_out)


def _find_part(folder: Path) -> _Part:
    if not has_shards(folder):
        return folder
    found = _named(str(folder), list_folder(str(folder)))
    return found.parts[_validation_part(found)]


def _validation_part(found: Found) -> str:
    """The validation part, else the only one."""
    if "validation" not in found.parts and len(found.parts) > 1:
        raise InputError(
            f"{found.location} has the parts {', '.join(found.names.values())}, none of them called val or validation"
        )
    return "validation" if "validation" in found.parts else next(iter(found.parts))


def open_found(parts: Mapping[str, _Part], progress: bool) -> dict[str, ImageSource]:
    """Open parts of one data set; the class folders of "train" must hold images.

    Args:
        parts: Of `find`.
        progress: Show a progress bar on stderr while counting the images of shards.

    Raises:
        InputError: As in `open_dataset`.
    """
    listings = {name: part for name, part in parts.items() if isinstance(part, Listing)}
    opened: dict[str, ImageSource] = dict(open_shards(listings, progress=progress))
    for name, part in parts.items():
        if not isinstance(part, Listing):
            opened[name] = open_folder(part, held_out=name != "train") if isinstance(part, Path) else part
    return {name: opened[name] for name in parts}


def check_files(*sources: ImageSource, progress: bool = False) -> None:
    """Decode every file of class folders once; other sources are left to `check_data`.

    Args:
        *sources: Any images.
        progress: Show a progress bar on stderr.

    Raises:
        InputError: If files cannot be read.
    """
    faults: list[str] = []
    count = 0
    for source in sources:
        files = source.files() if isinstance(source, LabelledImages) else []
        faults += examine(source, files, progress=progress).faults
        count += len(files)
    refuse_unreadable(faults, count)


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


def existing_folder(data: str) -> Path:
    """The absolute path of an existing folder, or an InputError that says what is wrong."""
    root = Path(data).expanduser()
    if not root.exists():
        raise InputError(f"DATA {data!r} does not exist; {_KINDS}")
    if not root.is_dir():
        raise InputError(f"DATA {data!r} is not a folder; {_KINDS}")
    return root.resolve()


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
