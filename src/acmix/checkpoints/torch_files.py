"""Files of `torch.save` as any trainer writes them: their tensors and plain data, and no object of theirs.

PyTorch's restricted unpickler (`weights_only=True`) refuses a file for every class that it does not know, also where
weights lie beside a Namespace, a configuration or NumPy's numbers, as in most trainers' checkpoints. So every name in a
file that PyTorch does not allow gets a stand-in: the class or function that the file means is never looked up, made or
called, and what would have been an object of it says its name and holds plain data at most.
"""

import io
import pickletools
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter
from typing import Any

import torch

from acmix.errors import InputError

# Before PyTorch 1.6: magic number, protocol, machine, content, then the raw storages.
_LEGACY_PICKLES = 4
# PyTorch's allowed names are the whole process's.
_ONE_AT_A_TIME = threading.Lock()


class Unknown:
    """What a call of a class or function would have made; `origin` is the name that the file gives."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


class _CalledByName(type):
    # Pickle makes objects with __new__ and calls functions, NumPy's numbers among them, whose state is no mapping.
    def __call__(cls, *_: object) -> Unknown:
        return Unknown(cls.__name__)


def read(data: bytes) -> Any:
    """Parse the bytes of a torch file, onto the CPU; `origin` tells what an object that is not plain would have been.

    Raises:
        InputError: If they are damaged, no torch file, or cannot be read without running code. The message is the
            reason alone.
    """
    try:
        with _ONE_AT_A_TIME:
            # What somebody else allowed must stay allowed afterwards.
            types = {Counter, Unknown}.difference(torch.serialization.get_safe_globals())
            stand_ins: list[Any] = [*types, *((_stand_in(name), name) for name in _unknown_names(data))]
            with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(stand_ins):
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except InputError:
        raise
    # What a damaged pickle makes its reader raise cannot be listed.
    except Exception as error:
        raise InputError(_reason(error)) from error


def origin(value: Any) -> str | None:
    """The name of the class or function that a value of `read` stands in for, None if it is what it seems."""
    return getattr(value, "origin", None) if isinstance(value, (Unknown, Counter)) else None


def _reason(error: Exception) -> str:
    """An error in a line; PyTorch's advice, to load the file freely, is not ours."""
    text = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"


def _unknown_names(data: bytes) -> set[str]:
    """Classes and functions that a file names, found without running it."""
    file = io.BytesIO(data)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            # PyTorch's own reader leaves the checksums alone. Written without them, all are zero.
            written = any(member.CRC for member in archive.infolist())
            if written and (broken := archive.testzip()) is not None:
                raise InputError(f"{broken} has another checksum")
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data)))
    file.seek(0)
    names = {
        tuple(argument.split(" ", 1))
        for _ in range(_LEGACY_PICKLES)
        for opcode, argument, _ in pickletools.genops(file)
        if opcode.name == "GLOBAL" and argument is not None
    }
    # Python 3 writes the names of Python 2.
    current = (NAME_MAPPING.get(name, (IMPORT_MAPPING.get(name[0], name[0]), name[-1])) for name in names)
    return {".".join(name) for name in current}


def _stand_in(name: str) -> Any:
    """What a file gets for a name: a class, or a function for containers that are called before they are filled."""
    if name in _CONTAINERS:
        return _CONTAINERS[name]

    def make(*_: object) -> Counter[Any]:
        # Of all types that PyTorch's unpickler fills with items and attributes, the one that no state dict has.
        made: Counter[Any] = Counter()
        vars(made)["origin"] = name
        return made

    return _CalledByName(name, (), {"__new__": make})


def _new_dictionary(*_: object) -> dict[Any, Any]:
    return {}


def _new_list(*_: object) -> list[Any]:
    return []


_CONTAINERS = {"collections.defaultdict": _new_dictionary, "collections.deque": _new_list}
