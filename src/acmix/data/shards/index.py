"""What lies where in a shard: a tar file's samples, found by reading its headers alone."""

import json
import os
import re
import tarfile
from dataclasses import dataclass
from typing import Any, BinaryIO

from acmix.data.images import suffixes
from acmix.errors import InputError

# webdataset's rule: a sample's key ends at the first dot of the file's name; what has no key is no part of a sample.
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)(\.[^/]+)", re.DOTALL)
_LABELS = (".cls", ".json", ".txt")
_LONGEST_LABEL = 1 << 20
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The samples of one shard in their order; entry i of each list is of sample i.

    Attributes:
        keys: Names of the samples, unique in the shard.
        suffixes: Of the image members, lower case with the dot.
        offsets: Where the image begins, in bytes.
        sizes: Bytes of the image.
        labels: A label, or the name of a class.
    """

    keys: list[str]
    suffixes: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[int | str]

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.keys)


def read_index(file: BinaryIO, name: str, json_key: str | None = None) -> ShardIndex:
    """Find the samples of a shard: an image and its label in members that share a key and follow one another.

    Nothing is extracted, and members that are neither an image nor a label are not read.

    Args:
        file: The shard.
        name: What to call the shard in an error.
        json_key: Take labels from this entry of the .json members; None takes .cls, else .json's label, else .txt.

    Raises:
        InputError: If it is no whole, uncompressed tar file; if a member is a link, a device or named to lie outside
            of the folder; or if a sample has no label, or more or less than one image.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            samples = _samples(archive, file.fileno(), name)
            # tarfile takes a damaged header for the end.
            whole = os.pread(file.fileno(), _BLOCK, archive.offset) == bytes(_BLOCK)
    except InputError:
        raise
    # Damaged sizes are numbers that no file has.
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise InputError(f"shard {name} is not a whole, uncompressed tar file ({error})") from error
    except OSError as error:
        raise InputError(f"shard {name} cannot be read ({error.strerror or error})") from error
    if not whole:
        raise InputError(f"shard {name} is truncated or damaged: it has no end-of-archive mark; fetch or write it anew")
    return _index(samples, name, json_key)


@dataclass
class _Sample:
    key: str
    members: dict[str, tuple[int, int]]
    label_files: dict[str, bytes]


def _samples(archive: tarfile.TarFile, descriptor: int, name: str) -> list[_Sample]:
    samples: list[_Sample] = []
    for member in archive:
        _refuse(member, name)
        found = _KEY.fullmatch(member.name)
        if found is None or member.isdir():
            continue
        key, suffix = found[1], found[2].lower()
        if not samples or samples[-1].key != key:
            samples.append(_Sample(key, {}, {}))
        sample = samples[-1]
        if suffix in sample.members:
            raise InputError(f"shard {name}: {member.name} is there twice")
        sample.members[suffix] = (member.offset_data, member.size)
        if suffix in _LABELS:
            if member.size > _LONGEST_LABEL:
                raise InputError(f"shard {name}: {member.name} has {member.size:,} bytes, too many for a label")
            sample.label_files[suffix] = os.pread(descriptor, member.size, member.offset_data)
    return samples


def _refuse(member: tarfile.TarInfo, name: str) -> None:
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise InputError(f"shard {name} is refused: its member {member.name!r} leaves the folder")
    if member.size < 0:
        raise InputError(f"shard {name} is damaged: its member {member.name!r} has {member.size} bytes")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise InputError(f"shard {name} is refused: its member {member.name!r} is a link, a device or a sparse file")


def _index(samples: list[_Sample], name: str, json_key: str | None) -> ShardIndex:
    index = ShardIndex(keys=[], suffixes=[], offsets=[], sizes=[], labels=[])
    known = suffixes()
    for sample in samples:
        images = [suffix for suffix in sample.members if suffix in known]
        if not images and not sample.label_files:
            continue
        if len(images) != 1:
            raise InputError(
                f"shard {name}: sample {sample.key!r} has {len(images)} images, expected one; the members of a sample "
                "share a name up to the first dot and follow one another"
            )
        offset, size = sample.members[images[0]]
        index.keys.append(sample.key)
        index.suffixes.append(images[0])
        index.offsets.append(offset)
        index.sizes.append(size)
        index.labels.append(_label(sample, name, json_key))
    if len(set(index.keys)) < len(index):
        twice = next(key for key in index.keys if index.keys.count(key) > 1)
        raise InputError(f"shard {name} has two samples named {twice!r}")
    return index


def _label(sample: _Sample, name: str, json_key: str | None) -> int | str:
    files, what = sample.label_files, f"shard {name}: the label of sample {sample.key!r}"
    label: Any = None
    try:
        if json_key is None and ".cls" in files:
            label = int(files[".cls"])
        elif ".json" in files and isinstance(content := json.loads(files[".json"]), dict):
            label = content.get(json_key) if json_key else content.get("label", content.get("class_name"))
        if label is None and json_key is None and ".txt" in files:
            label = files[".txt"].decode().strip()
    except ValueError as error:
        raise InputError(f"{what} cannot be read ({error})") from error
    if (type(label) is int and label >= 0) or (isinstance(label, str) and label):
        return label
    if label is None:
        wanted = f"an entry {json_key!r} of its .json" if json_key else ".cls, .json with label, or .txt"
        raise InputError(f"{what} is missing, expected {wanted}")
    raise InputError(f"{what} must be a whole number of at least 0 or a class name, got {label!r}")
