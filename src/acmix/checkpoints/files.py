"""State dicts out of files of any trainer, read without running anything that is stored in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from acmix import records
from acmix.checkpoints import sealed, torch_files
from acmix.errors import InputError

# Where trainers keep weights, at any depth. Averages come first: they are what a trainer validates and publishes.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema")
_HOLDERS = (*_AVERAGES, "state_dict", "model_state_dict", "model", "module", "network", "net", "weights")
_DEEPEST = 3
_INDEX = ".index.json"
# A run's checkpoints, and the weights of an exported folder.
BEST, LAST, WEIGHTS = "best.safetensors", "last.safetensors", "model.safetensors"
_SAVE = "save model.state_dict() alone or as .safetensors"


@dataclass(frozen=True, kw_only=True)
class StateFile:
    """What a file of weights holds.

    Attributes:
        tensors: By name, on the CPU, as stored.
        place: The keys under which they lie, "model.state_dict" for instance; "" if the file is a bare state dict.
        others: Places of other weights in the file, which were not taken.
    """

    tensors: dict[str, Tensor]
    place: str
    others: tuple[str, ...]

    @property
    def words(self) -> str:
        """Which weights of the file these are, to stand behind its name; "" where it has no others."""
        place = f", {self.place}" if self.place else ""
        return place + (f" (not {', '.join(self.others)})" if self.others else "")


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a file, onto the CPU and without running anything that is stored in it.

    Args:
        path: A `.safetensors` file, the `.index.json` of one in parts, or a file of `torch.save` that holds a state
            dict, bare or among other things as trainers store it: under "state_dict", "model", "module" and the like,
            in one another. An average ("state_dict_ema", "model_ema", "ema") is preferred, as timm does. Objects
            beside the weights are not made, whatever they are. A run folder stands for its best.safetensors, an
            exported folder for its model.safetensors, also in parts.

    Returns:
        Tensors by name, as stored.

    Raises:
        InputError: If the file is missing, cannot be read, is corrupt (a digest or checksum of it differs), or holds no
            weights but pickled objects or something else.
    """
    return read_state_file(path).tensors


def read_state_file(path: str | Path) -> StateFile:
    """As `load_state_dict`, and say which of the file's weights were taken."""
    path = _of_folder(Path(path))
    data = read_bytes(path, "weights")
    if path.name.endswith(_INDEX):
        return _read_parts(path, data)
    if is_safetensors(data) or path.suffix == ".safetensors":
        try:
            content: Any = sealed.deserialize(data).tensors
        except InputError as fault:
            raise InputError(f"weights {path} are corrupt: {fault}; copy them again") from fault
    else:
        try:
            content = torch_files.read(data)
        except InputError as fault:
            raise InputError(
                f"weights {path} must be a torch file of tensors and plain data, got one that is corrupt or holds "
                f"objects which could run code ({fault}); {_SAVE}"
            ) from fault
    places = list(_places(content))
    found = [(place, tensors) for place, item in places if (tensors := _as_state_dict(item))]
    if not found:
        raise InputError(f"weights {path} must hold tensors by name, got {_describe(places)}; {_SAVE}")
    (place, tensors), *others = found
    return StateFile(tensors=tensors, place=place, others=tuple(other for other, _ in others))


def _of_folder(path: Path) -> Path:
    """The file of weights that a folder stands for; any other path stands for itself."""
    if not path.is_dir():
        return path
    names = (BEST, WEIGHTS, WEIGHTS + _INDEX)
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise InputError(f"weights {path} is a folder without {', '.join(names[:-1])} or {names[-1]}; give a file")
    return found


def read_bytes(path: Path, kind: str) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: If it cannot be read; `kind` says what it is for.
    """
    if path.is_dir():
        raise InputError(f"{kind} {path} is a folder; give a file")
    if not path.is_file():
        raise InputError(f"{kind} {path} does not exist; give a run folder or a file of weights")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{kind} {path} cannot be read: {error.strerror or error}; check its permissions") from error


def is_safetensors(data: bytes) -> bool:
    """Whether bytes begin as a safetensors file does."""
    return data[8:9] == b"{"


@dataclass(frozen=True)
class _Index:
    weight_map: dict[str, str]


def _read_parts(path: Path, data: bytes) -> StateFile:
    """Weights in several files, whose index says which tensor lies in which."""
    try:
        index = records.read(_Index, records.parse(data), others=True).weight_map
    except InputError as fault:
        raise InputError(f"weights {path} must be an index with a weight_map of names to files: {fault}") from fault
    files = sorted(set(index.values()))
    strange = [name for name in files if not name or Path(name).name != name]
    if strange or not files:
        raise InputError(f"weights {path} must name files beside it, got {strange[0] if strange else 'none'}")
    parts = {name: load_state_dict(path.with_name(name)) for name in files}
    for tensor, name in index.items():
        if tensor not in parts[name]:
            raise InputError(f"weights {path} must name tensors that are there, {path.with_name(name)} lacks {tensor}")
    return StateFile(tensors={tensor: parts[name][tensor] for tensor, name in index.items()}, place="", others=())


def _places(content: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """What lies in a file where weights may, the preferred first."""
    yield ".".join(place), content
    if isinstance(content, dict) and len(place) < _DEEPEST:
        for key in _HOLDERS:
            if key in content:
                yield from _places(content[key], (*place, key))


def _as_state_dict(item: Any) -> dict[str, Tensor] | None:
    """Tensors by name, None if an item is anything else or empty."""
    # A file may give a dictionary attributes, which would hide its methods.
    entries = dict(dict.items(item)) if isinstance(item, dict) else {}
    return entries if entries and not _strange(entries) else None


def _strange(entries: dict[Any, Any]) -> list[Any]:
    """Keys that make a dictionary no state dict."""
    return [key for key, item in entries.items() if not isinstance(key, str) or not isinstance(item, Tensor)]


def _describe(places: list[tuple[str, Any]]) -> str:
    """What a file holds in place of weights: a pickled network, tensors among other things, or something else."""
    for place, item in places:
        if (origin := torch_files.origin(item)) is not None:
            where = f" at {place!r}" if place else ""
            return f"a pickled {origin}{where}, which cannot be read without running code"
    for place, item in reversed(places):
        entries = dict(dict.items(item)) if isinstance(item, dict) else {}
        strange = _strange(entries)
        if 0 < len(strange) < len(entries):
            value = entries[strange[0]]
            where = f" of {place!r}" if place else ""
            return f"{torch_files.origin(value) or type(value).__name__} at {strange[0]!r}{where}"
    content = places[0][1]
    if not isinstance(content, dict):
        return type(content).__name__
    return f"none, but {', '.join(map(repr, list(content)[:8])) or 'nothing at all'}"
