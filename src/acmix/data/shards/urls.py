"""Where shards lie: brace patterns, lists of URLs, and files beside shards, on this machine or behind fsspec."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from acmix import records
from acmix.errors import InputError

_BRACES = re.compile(r"\{(?P<body>[^{}]*(?:\.\.|,)[^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")
# Seconds without a byte after which a server counts as gone.
_SILENCE = 60
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_remote(url: str) -> bool:
    """Whether a URL is to be read through fsspec: it has a scheme other than `file://`."""
    return _SCHEME.match(url) is not None and not url.startswith("file://")


def local_path(url: str) -> Path:
    """The absolute path of a file or folder of this machine, given as a path or a `file://` URL."""
    return Path(url.removeprefix("file://")).expanduser().absolute()


def is_pattern(data: str) -> bool:
    """Whether a person's DATA names shards: a brace pattern, several of them, a .tar file or a list of URLs."""
    return "::" in data or bool(_BRACES.search(data)) or data.endswith((".tar", ".txt"))


def expand(pattern: str) -> list[str]:
    """All URLs of a pattern, in its order.

    Args:
        pattern: Paths or URLs joined by `::`, each with braces as in `train-{000..127}.tar` or `{a,b}.tar`; or a text
            file with one of these a line, relative paths counting from its folder.

    Raises:
        InputError: If it names no shard, the same shard twice, or something that is not a .tar file.
    """
    if pattern.endswith(".txt"):
        urls = [url for line in _listed(pattern) for part in line.split("::") for url in _unfold(part)]
    else:
        urls = [url for part in pattern.split("::") for url in _unfold(part.strip())]
    if other := [url for url in urls if not url.endswith(".tar")]:
        raise InputError(f"{pattern!r} names {other[0]!r}; shards are uncompressed files that end in .tar")
    urls = [url if is_remote(url) else str(local_path(url)) for url in urls]
    if not urls:
        raise InputError(f"{pattern!r} names no shard; give a pattern as in train-{{000000..000127}}.tar")
    if len(set(urls)) < len(urls):
        twice = next(url for url in urls if urls.count(url) > 1)
        raise InputError(f"{pattern!r} names {twice} twice; name every shard once")
    return urls


def _unfold(pattern: str) -> Iterator[str]:
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    span = _RANGE.fullmatch(found["body"])
    if span is None:
        values: list[str] = found["body"].split(",")
    else:
        first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
        if last < first or step < 1:
            raise InputError(f"{pattern!r}: {{{found['body']}}} must count upwards")
        # The shell's rule: numbers written with leading zeros all have the same width.
        padded = any(len(text) > 1 and text.startswith("0") for text in (span[1], span[2]))
        width = max(len(span[1]), len(span[2])) if padded else 0
        values = [f"{number:0{width}d}" for number in range(first, last + 1, step)]
    for value in values:
        yield from _unfold(pattern[: found.start()] + value + pattern[found.end() :])


def _listed(path: str) -> list[str]:
    url = path if is_remote(path) else str(local_path(path))
    folder, _, name = url.rpartition("/")
    content = read_beside(folder, name)
    if content is None:
        raise InputError(f"the list of shards {path!r} does not exist")
    lines = [line.strip().removeprefix("file://") for line in _text(content, path).splitlines()]
    return [line if is_remote(line) or line.startswith("/") else f"{folder}/{line}" for line in lines if line]


def parent(url: str) -> str:
    """The folder that a shard lies in."""
    return url.rpartition("/")[0]


def read_beside(folder: str, name: str) -> bytes | None:
    """Read a small file in a folder; None if there is none, or none that may be read.

    Raises:
        InputError: If the folder cannot be read.
    """
    if not is_remote(folder):
        try:
            return (local_path(folder) / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{folder}/{name} cannot be read: {error.strerror or error}") from error
    system, path = remote(f"{folder.rstrip('/')}/{name}")
    try:
        return system.cat_file(path)
    except (FileNotFoundError, PermissionError):
        return None
    except Exception as error:  # fsspec's file systems raise whatever their clients raise
        # Stores that do not let everyone list them say "forbidden" of what is not there.
        if getattr(error, "status", None) == HTTPStatus.FORBIDDEN:
            return None
        raise InputError(f"{folder}/{name} cannot be read: {error}") from error


def remote(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it.

    Raises:
        InputError: If the scheme is unknown or its package is not installed.
    """
    import fsspec

    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        from aiohttp import ClientTimeout

        # A shard may take longer than the five minutes of the default, as long as it goes on arriving.
        timeout = ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
        options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
    try:
        return fsspec.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url} cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Shards of one part of a data set, and what is written beside them.

    Attributes:
        urls: Paths or URLs of the shards.
        lengths: Images of each; None where nothing says so.
        classes: Class names in the order of the labels; None where nothing says so.
        json_key: Take labels from this entry of the .json members; None takes .cls, else .json's label, else .txt.
    """

    urls: tuple[str, ...]
    lengths: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    json_key: str | None = None


def list_pattern(pattern: str) -> Listing:
    """Shards that a pattern names, with what `_info.json` and `classes.txt` beside the first of them say.

    Raises:
        InputError: If the pattern or a file beside the shards cannot be used.
    """
    urls = expand(pattern)
    folder = parent(urls[0])
    info, classes = _info(folder), _classes(folder)
    known: dict[str, int] = {}
    json_key = None
    for split in _splits(folder, info).values():
        known |= dict(zip(split.urls, split.lengths or (), strict=True))
        if split.json_key is not None and set(urls) <= set(split.urls):
            json_key = split.json_key
    lengths = tuple(known[url] for url in urls) if set(urls) <= set(known) else None
    return Listing(urls=tuple(urls), lengths=lengths, classes=classes or _named(folder, info), json_key=json_key)


def list_folder(folder: str) -> dict[str, Listing]:
    """Shards of each split of a folder, by the split's name.

    timm's `_info.json` names splits, shards and their lengths; without it the shards of a split are those whose names
    begin with the split's name and a hyphen, or all of them, as the split "".

    Raises:
        InputError: If the folder holds no shard, or a file in it cannot be used.
    """
    info = _info(folder)
    classes = _classes(folder) or _named(folder, info)
    if info is not None:
        return {
            name: Listing(urls=split.urls, lengths=split.lengths, classes=classes, json_key=split.json_key)
            for name, split in _splits(folder, info).items()
        }
    splits: dict[str, list[str]] = {}
    for url in tars_in(folder):
        found = re.match(r"(train|val|validation|test)-", url.rpartition("/")[2])
        splits.setdefault(found[1] if found else "", []).append(url)
    if len(splits) > 1 and "" in splits:
        raise InputError(
            f"{folder}: {splits[''][0]} belongs to no split; shards are named train-NUMBER.tar, validation-NUMBER.tar"
        )
    if not splits:
        raise InputError(f"{folder} holds no shards, neither _info.json nor .tar files")
    return {name: Listing(urls=tuple(urls), lengths=None, classes=classes) for name, urls in splits.items()}


def tars_in(folder: str) -> list[str]:
    """The .tar files directly in a folder, by name; none in a folder that cannot be listed.

    Raises:
        InputError: If a remote folder cannot be listed.
    """
    if not is_remote(folder):
        return sorted(str(path) for path in local_path(folder).glob("*.tar"))
    system, path = remote(folder)
    try:
        return sorted(system.unstrip_protocol(found) for found in system.glob(f"{path.rstrip('/')}/*.tar"))
    except Exception as error:  # fsspec's file systems raise whatever their clients raise
        raise InputError(f"{folder} cannot be listed: {error}") from error


def has_shards(folder: Path) -> bool:
    """Whether a folder of this machine holds shards."""
    return any((folder / name).is_file() for name in _INFO_NAMES) or next(folder.glob("*.tar"), None) is not None


_INFO_NAMES = ("_info.json", "info.json")


@dataclass(frozen=True)
class _Split:
    urls: tuple[str, ...]
    lengths: tuple[int, ...]
    json_key: str | None


@dataclass(frozen=True)
class _InfoSplit:
    filenames: list[str]
    shard_lengths: list[int]
    alt_label: str | None = None


@dataclass(frozen=True)
class _Info:
    """What of timm's `_info.json` is read."""

    splits: dict[str, _InfoSplit]
    classes: list[str] | None = None


def _info(folder: str) -> _Info | None:
    for name in _INFO_NAMES:
        content = read_beside(folder, name)
        if content is not None:
            try:
                info = records.read(_Info, records.parse(content), others=True)
            except InputError as fault:
                raise InputError(f"{folder}/{name} is no description of shards: {fault}") from fault
            if not info.splits:
                raise InputError(f"{folder}/{name} is no description of shards: it names no splits")
            return info
    return None


def _splits(folder: str, info: _Info | None) -> dict[str, _Split]:
    splits: dict[str, _Split] = {}
    if info is None:
        return splits
    for name, split in info.splits.items():
        files, lengths = split.filenames, split.shard_lengths
        if not 0 < len(files) == len(lengths) or min(lengths) < 0:
            raise InputError(
                f"{folder}/_info.json: split {name!r} needs filenames and as many shard_lengths, none below 0"
            )
        if wrong := [file for file in files if not _stays_inside(file)]:
            raise InputError(f"{folder}/_info.json: split {name!r} names {wrong[0]!r}, which is no file in the folder")
        root = folder.rstrip("/") if is_remote(folder) else str(local_path(folder))
        splits[name] = _Split(tuple(f"{root}/{file}" for file in files), tuple(lengths), split.alt_label or None)
    return splits


def _stays_inside(name: str) -> bool:
    return not name.startswith("/") and "://" not in name and ".." not in name.split("/")


def _classes(folder: str) -> tuple[str, ...] | None:
    if (content := read_beside(folder, "classes.txt")) is not None:
        return _checked(_text(content, f"{folder}/classes.txt").split("\n"), f"{folder}/classes.txt")
    if (content := read_beside(folder, "classes.json")) is not None:
        try:
            names = records.value(list[str], records.parse(content), "")
        except InputError as fault:
            raise InputError(f"{folder}/classes.json must hold a list of class names: {fault}") from fault
        return _checked(names, f"{folder}/classes.json")
    return None


def _named(folder: str, info: _Info | None) -> tuple[str, ...] | None:
    return None if info is None or info.classes is None else _checked(info.classes, f"{folder}/_info.json")


def _checked(names: list[str], file: str) -> tuple[str, ...]:
    """Class names of a file, without an empty last line."""
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    if "" in names or len(set(names)) < len(names) or len(names) < 2:
        raise InputError(f"{file} must name at least two classes, each once and none empty")
    return tuple(names)


def _text(content: bytes, file: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not text in UTF-8: {error}") from error
