"""Blocks of code in Markdown, and what is to become of each."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [path for folder in (".", "docs", "docs/zh", ".github") for path in sorted((ROOT / folder).glob("*.md"))]
OUTPUT = {"text", "bibtex"}
DATA = {"yaml"}
_BLOCK = re.compile(r"(?:<!-- ([^\n]*) -->\n)?^(`{3,})([^\n]*)\n(.*?)^\2$", re.MULTILINE | re.DOTALL)
# What `make bench` writes, of programs that other tests run.
_GENERATED = re.compile(r"<!-- measured: .*?<!-- end of measured -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        document: Its file, from the root of the repository.
        language: What stands behind its fence.
        code: Its lines.
        mark: The comment right above it, or "".
    """

    document: str
    language: str
    code: str
    mark: str


def blocks_of(path):
    """The blocks of a document, without what is generated into it."""
    text = _GENERATED.sub("", path.read_text())
    name = path.relative_to(ROOT).as_posix()
    return [Block(name, kind.strip(), code, mark or "") for mark, _, kind, code in _BLOCK.findall(text)]


def is_left_out(block):
    """Whether it says itself why it is not run here."""
    return block.mark.startswith("not run here: ")


def lines_of(code):
    """The commands of a block of shell, without comments."""
    lines = code.replace("\\\n", " ").splitlines()
    parts = (part.strip() for line in lines for part in re.sub(r"(^|\s)#.*", "", line).split("&&"))
    return [part for part in parts if part]
