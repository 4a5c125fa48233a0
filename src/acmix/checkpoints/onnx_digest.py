"""A digest within an ONNX file, of all its other bytes."""

import hashlib
import re
from pathlib import Path

from acmix.errors import InputError

KEY = "acmix.sha256"
# What stands in its place while the file is written, and while it is hashed.
EMPTY = "0" * 64
# How protobuf writes the entry: field 1, a text of so many bytes; field 2, a text of 64 bytes.
_ENTRY = re.compile(b"\x0a" + bytes([len(KEY)]) + re.escape(KEY.encode()) + b"\x12\x40([0-9a-f]{64})")


def write_digest(file: Path) -> None:
    """Put the digest into a file whose metadata hold `EMPTY` under `KEY`."""
    content = file.read_bytes()
    found = _ENTRY.search(content)
    if found is None:
        raise AssertionError("the writer sets the entry")
    with file.open("r+b") as opened:
        opened.seek(found.start(1))
        opened.write(_digest(content, found).encode())


def check_digest(content: bytes) -> None:
    """Refuse a file that is not as it was written; one without a digest, of an older version, is taken as it is.

    Raises:
        InputError: If a byte differs. The message is the fault alone.
    """
    found = _ENTRY.search(content)
    if found is not None and found[1].decode() != _digest(content, found):
        raise InputError("its content is not what was exported: it is damaged, or another program has changed it")


def _digest(content: bytes, found: re.Match[bytes]) -> str:
    parts = (content[: found.start(1)], EMPTY.encode(), content[found.end(1) :])
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
