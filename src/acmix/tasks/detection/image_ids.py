"""What COCO's results call image files."""

from collections.abc import Sequence
from pathlib import Path

from acmix.data.annotated.coco import image_names
from acmix.errors import InputError, printable


def image_ids(files: Sequence[Path], annotations: Path | None = None) -> list[int] | list[str]:
    """The id of every image file.

    Args:
        files: Of images.
        annotations: A file of COCO's annotations, which calls the images by these ids.

    Returns:
        Those of the annotations; else the numbers that the files are called, as COCO's are, 139 of 000000000139.jpg;
        else, where a name is no number or two are one, the files.

    Raises:
        InputError: If annotations cannot be read, or an image is not among them, or could be one of several.
    """
    if annotations is not None:
        return _of_annotations(files, annotations)
    stems = [file.stem for file in files]
    if all(stem.isascii() and stem.isdigit() and len(stem) < 19 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len({*numbers}) == len(numbers):
            return numbers
    return [printable(file) for file in files]


def _of_annotations(files: Sequence[Path], annotations: Path) -> list[int]:
    known: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for name, identity in image_names(annotations):
        parts = Path(name).parts
        known.setdefault(parts[-1], []).append((parts, identity))
    found: list[int] = []
    for file in files:
        # Annotations know the last folders of a path at most.
        own = file.absolute().parts
        ids = {identity for parts, identity in known.get(file.name, ()) if own[-len(parts) :] == parts}
        if len(ids) != 1:
            what = "no image" if not ids else f"{len(ids)} images"
            raise InputError(f"annotations {printable(annotations)} hold {what} of the name of {printable(file)}")
        found.append(ids.pop())
    return found
