"""What lies where in a shard: a tar file's samples, found by reading its headers alone."""

import json
import os
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from acmix.data.images import suffixes
from acmix.data.names import Names
from acmix.errors import InputError

# webdataset's rule: members belong together whose names agree up to the first dot; what has no such name, hidden files
# too, is no part of a sample. What follows is the middle, empty or `.v2`, and the suffix.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)((?:\.[^/]*)?)(\.[^./]+)", re.DOTALL)
_LABELS = (".cls", ".json", ".txt")
_LONGEST_LABEL = 1 << 20
_BLOCK = 512
_NAMED = 6
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The samples of one shard in their order; entry i of each list is of sample i.

    Names that are not UTF-8 are decoded as `os.fsdecode` does.

    Attributes:
        keys: Names of the samples, unique in the shard.
        suffixes: Of the image members, lower case with the dot.
        offsets: Where the image begins, in bytes.
        sizes: Bytes of the image.
        labels: A label, or the name of a class.
        fields: Names of the images that are no sample but fields of one, in their order.
    """

    keys: Names
    suffixes: Sequence[str]
    offsets: Sequence[int]
    sizes: Sequence[int]
    labels: Sequence[int | str]
    fields: Names

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.keys)


def read_index(file: BinaryIO, name: str, json_key: str | None = None) -> ShardIndex:
    """Find the samples of a shard: an image and its label in members that share a name and follow one another.

    Members whose names agree up to the first dot are one group, as in webdataset. Those that agree up to the last dot
    are a sample if they are an image and a label: `im0.v2.jpg` and `im0.v2.cls` are the sample `im0.v2`. What
    else there is under a longer name than a sample's is a field of it and not read: `im0.mask.png` beside `im0.jpg` and
    `im0.cls`. The only image of a group may take the label of the shortest name: `im0.rgb.jpg` that of `im0.cls`.
    Nothing is extracted, and members that are neither an image nor a label are not read.

    Args:
        file: The shard.
        name: What to call the shard in an error.
        json_key: Take labels from this entry of the .json members; None takes .cls, else .json's label, else .txt.

    Raises:
        InputError: If it is no whole, uncompressed tar file; if a member is a link, a device or named to lie outside
            of the folder; or if an image has no label, a label no image or more than one, or members of a group can
            be paired in more than one way.
    """
    try:
        # The names of members are bytes, whatever the language of the machine.
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            groups = _groups(archive, name)
            # tarfile takes a damaged header for the end.
            if os.pread(file.fileno(), _BLOCK, archive.offset) != bytes(_BLOCK):
                raise InputError(
                    f"shard {name} is truncated or damaged: it has no end-of-archive mark; fetch or write it anew"
                )
            return _index(groups, file.fileno(), name, json_key)
    except InputError:
        raise
    # Damaged sizes are numbers that no file has.
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise InputError(f"shard {name} is not a whole, uncompressed tar file ({error})") from error
    except OSError as error:
        raise InputError(f"shard {name} cannot be read ({error.strerror or error})") from error


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class _Group:
    """Adjacent members whose names agree up to the first dot: by what is between there and the last dot, by suffix."""

    key: str
    members: dict[str, dict[str, _Member]]


def _groups(archive: tarfile.TarFile, name: str) -> list[_Group]:
    groups: list[_Group] = []
    for info in archive:
        _refuse(info, name)
        found = _NAME.fullmatch(info.name)
        if found is None or info.isdir():
            continue
        key, middle, suffix = found[1], found[2], found[3].lower()
        if not groups or groups[-1].key != key:
            groups.append(_Group(key, {}))
        members = groups[-1].members.setdefault(middle, {})
        if suffix in members:
            raise InputError(f"shard {name}: {info.name} is there twice")
        members[suffix] = _Member(info.name, info.offset_data, info.size)
    return groups


def _refuse(member: tarfile.TarInfo, name: str) -> None:
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise InputError(f"shard {name} is refused: its member {member.name!r} leaves the folder")
    if member.size < 0:
        raise InputError(f"shard {name} is damaged: its member {member.name!r} has {member.size} bytes")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise InputError(f"shard {name} is refused: its member {member.name!r} is a link, a device or a sparse file")


def _index(groups: list[_Group], descriptor: int, name: str, json_key: str | None) -> ShardIndex:
    known = suffixes()
    samples: list[_Sample] = []
    fields: list[str] = []
    for group in groups:
        found = _samples(group, known, name)
        samples += found
        taken = {sample.image for sample in found}
        fields += [
            member.name
            for members in group.members.values()
            for suffix, member in members.items()
            if suffix in known and member not in taken
        ]
    labels = [
        _label(sample.labels, descriptor, f"shard {name}: the label of sample {sample.key!r}", json_key)
        for sample in samples
    ]
    for key, count in Counter(sample.key for sample in samples).items():
        if count > 1:
            raise InputError(f"shard {name} has two samples named {key!r}")
    return ShardIndex(
        keys=Names(sample.key for sample in samples),
        suffixes=_shared(sample.suffix for sample in samples),
        offsets=array("q", (sample.image.offset for sample in samples)),
        sizes=array("q", (sample.image.size for sample in samples)),
        labels=_shared(labels),
        fields=Names(fields),
    )


def _shared(values: Iterable[_Value]) -> list[_Value]:
    """The values, equal ones as one object."""
    known: dict[_Value, _Value] = {}
    return [known.setdefault(value, value) for value in values]


@dataclass(frozen=True)
class _Sample:
    """A sample: its key, the suffix of its image, the image, and what may hold its label by suffix."""

    key: str
    suffix: str
    image: _Member
    labels: dict[str, _Member]


def _samples(group: _Group, known: frozenset[str], name: str) -> list[_Sample]:
    """The samples of a group, by the rule of `read_index`."""
    images = {middle: sorted(known & members.keys()) for middle, members in group.members.items()}
    labels = {
        middle: {suffix: members[suffix] for suffix in _LABELS if suffix in members}
        for middle, members in group.members.items()
    }
    whole = [middle for middle in group.members if images[middle] and labels[middle]]
    if "" in whole:
        # An image beside it with a description of another kind is one of its fields.
        whole = [middle for middle in whole if labels[middle].keys() == labels[""].keys()]
    if whole:
        # Where there are several, a name that begins as the shortest may be a field of it or another sample.
        ends = tuple(f"{middle}." for middle in whole if middle or len(whole) == 1)
        parts = [middle for middle in group.members if images[middle] or labels[middle]]
        taken = [(middle, middle) for middle in parts if middle in whole or not middle.startswith(ends)]
    elif sum(map(len, images.values())) == 1 and labels.get(""):
        taken = [(next(middle for middle, found in images.items() if found), "")]
    else:
        taken = [(middle, middle) for middle in group.members if images[middle] or (not middle and labels[middle])]
    samples: list[_Sample] = []
    for middle, label in taken:
        key = f"{group.key}{label}"
        if len(images[middle]) != 1:
            there = [member.name for members in group.members.values() for member in members.values()]
            raise InputError(
                f"shard {name}: sample {key!r} has {len(images[middle])} images, expected one, among "
                f"{', '.join(there[:_NAMED])}; the members of a sample share a name up to the last dot and follow one "
                "another"
            )
        (suffix,) = images[middle]
        samples.append(_Sample(key, suffix, group.members[middle][suffix], labels[label]))
    return samples


def _label(members: dict[str, _Member], descriptor: int, what: str, json_key: str | None) -> int | str:
    label: Any = None
    try:
        if json_key is None and ".cls" in members:
            label = int(_text(members[".cls"], descriptor, what))
        elif ".json" in members:
            content = json.loads(_text(members[".json"], descriptor, what))
            if isinstance(content, dict):
                label = content.get(json_key) if json_key else content.get("label", content.get("class_name"))
        if label is None and json_key is None and ".txt" in members:
            label = _text(members[".txt"], descriptor, what).decode().strip()
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} cannot be read ({error})") from error
    if (type(label) is int and label >= 0) or (isinstance(label, str) and label):
        return label
    if label is None:
        wanted = f"an entry {json_key!r} of its .json" if json_key else ".cls, .json with label, or .txt"
        raise InputError(f"{what} is missing, expected {wanted}")
    raise InputError(f"{what} must be a whole number of at least 0 or a class name, got {label!r}")


def _text(member: _Member, descriptor: int, what: str) -> bytes:
    if member.size > _LONGEST_LABEL:
        raise InputError(f"{what} cannot be read: {member.name} has {member.size:,} bytes, too many for a label")
    return os.pread(descriptor, member.size, member.offset)
