"""Write any labelled images as webdataset shards."""

import io
import json
import math
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acmix.data.images import open_image, suffix_of, suffixes
from acmix.data.labels import Label
from acmix.data.shards.index import read_index
from acmix.data.sources import EncodedImage, ImageSource, hashed_order
from acmix.errors import InputError, check_least
from acmix.progress import Progress, silent
from acmix.storage import folder_beside, replacing, write_atomically

# timm's reader looks for jpg.
_SHORT = dict.fromkeys((".jpeg", ".jpe", ".jfif", ".mpo"), ".jpg")
_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class WrittenSplit:
    """One split of what `write_shards` wrote: how many shards, images in them, and bytes of the files."""

    shards: int
    images: int
    size: int


def write_shards(
    parts: Mapping[str, ImageSource],
    output: Path,
    *,
    images_per_shard: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, WrittenSplit]:
    """Write `SPLIT-NUMBER.tar` for every part, and timm's `_info.json` with the class names.

    The bytes of every image are kept as they are, not decoded, beside its label in `.cls`. Images are in the order of a
    hash of seed and name; equal images, names and seed give equal files, byte for byte. Every shard is read back. All
    is written to a folder beside it, renamed when it is whole and removed when it cannot be.

    Args:
        parts: Images of each split, by its name, with the same classes.
        output: A folder that does not exist or is empty.
        images_per_shard: In every shard but the last of a split, which may have fewer.
        seed: Another seed, another order.
        progress: Shows how far it is.

    Raises:
        InputError: If output holds something or cannot be written, if images_per_shard is not positive, if images are
            multi-label, or if one cannot be read or is of no known format.
    """
    check_least(1, images_per_shard=images_per_shard)
    if any(images.multi_label for images in parts.values()):
        raise InputError("shards hold one label an image, and these images have any number; train on the table")
    written: dict[str, WrittenSplit] = {}
    splits: dict[str, object] = {}
    with _whole_folder(output) as folder, ThreadPoolExecutor(_THREADS) as pool:
        for name, images in parts.items():
            shards = _write_split(folder, name, images, images_per_shard, seed, pool)
            files = list(progress(shards, f"writing {name}", math.ceil(len(images) / images_per_shard), "shard"))
            lengths = [length for _, length in files]
            splits[name] = {
                "name": name,
                "num_samples": sum(lengths),
                "filenames": [path.name for path, _ in files],
                "shard_lengths": lengths,
            }
            size = sum(path.stat().st_size for path, _ in files)
            written[name] = WrittenSplit(shards=len(files), images=sum(lengths), size=size)
        classes = next(iter(parts.values())).classes
        write_atomically(folder / "_info.json", json.dumps({"splits": splits, "classes": classes}, indent=1))
    return written


@contextmanager
def _whole_folder(output: Path) -> Iterator[Path]:
    """A folder that becomes output at the end, or vanishes."""
    given, output = output, output.absolute()
    if output == Path.cwd() or (output.exists() and (not output.is_dir() or any(output.iterdir()))):
        raise InputError(f"{given} must be a new or empty folder, not the current one; give another")
    try:
        if not output.parent.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(output) as partial:
            yield partial
            if output.exists():
                output.rmdir()
            partial.rename(output)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}") from error


def _write_split(
    folder: Path,
    name: str,
    images: ImageSource,
    images_per_shard: int,
    seed: int,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[Path, int]]:
    order = hashed_order(images, seed)
    for number, begin in enumerate(range(0, len(order), images_per_shard)):
        chosen = order[begin : begin + images_per_shard]
        path = folder / f"{name}-{number:06d}.tar"
        labels: list[Label] = []
        with replacing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for position, (index, stored) in enumerate(
                zip(chosen, pool.map(images.encoded, chosen), strict=True), begin
            ):
                key = f"{position:09d}"
                _add(archive, key + _suffix(stored, images, index), stored.content)
                _add(archive, f"{key}.cls", str(stored.label).encode())
                labels.append(stored.label)
        with path.open("rb") as file:
            if read_index(file, str(path)).labels != labels:
                raise InputError(f"{path} reads back with other labels than were written; is the disk sound?")
        yield path, len(chosen)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    # A new TarInfo has no time, owner or rights of this machine.
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _suffix(stored: EncodedImage, images: ImageSource, index: int) -> str:
    suffix = stored.suffix
    if suffix not in suffixes():
        with open_image(stored.content, images.name(index)) as image:
            suffix = suffix_of(image)
    return _SHORT.get(suffix, suffix)


def check_outside(output: Path, location: str) -> None:
    """Refuse an output folder within the data that is read.

    Raises:
        InputError: If output lies in the folder at location.
    """
    root = Path(location)
    root = root.parent if root.is_file() else root
    real = output.resolve()
    if root.is_dir() and root.resolve() in (real, *real.parents):
        raise InputError(f"{output} lies in {location}, which is read; give a folder outside of it")
