"""Every public name of acmix that code mentions is there: in documents, model cards, examples and docstrings."""

import ast
import importlib
import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, ROOT, blocks_of

NAME = re.compile(r"(?<![\w/.@-])acmix((?:\.[A-Za-z_]\w*)+)(?![\w/]|\.\w)")
INLINE = re.compile(r"`([^`\n]+)`")
# Of names that look so: endings of files, and what an .onnx keeps its digest under.
FILES = ("sha256", "py", "md", "svg", "json", "png", "onnx", "html")
DOCSTRINGS = sorted((ROOT / "src/acmix").rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def names_in(code):
    """What it mentions, from "acmix" on, without names of files."""
    return {f"acmix{rest}" for rest in NAME.findall(code) if rest.rpartition(".")[2] not in FILES}


def documented(path):
    text = path.read_text()
    return {*names_in("\n".join(block.code for block in blocks_of(path))), *names_in(" ".join(INLINE.findall(text)))}


def in_docstrings(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    return names_in("\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)))


def fault_of(name):
    """Why a name is not public; None if it is."""
    parts = name.split(".")
    if private := [part for part in parts if part.startswith("_") and not part.startswith("__")]:
        return f"{private[0]} is private"
    module, found = "acmix", importlib.import_module("acmix")
    for number, part in enumerate(parts[1:], 2):
        if hasattr(found, part):
            found = getattr(found, part)
        elif hasattr(found, "__path__") and find_spec(f"{module}.{part}"):
            module = f"{module}.{part}"
            if module.startswith("acmix.integrations."):
                return fault_of_source(module, parts[number:])
            found = importlib.import_module(module)
        else:
            return f"there is no {'.'.join(parts[:number])}"
        module = found.__name__ if inspect.ismodule(found) else module
    return None


def fault_of_source(module, rest):
    """The same of a module that needs other people's packages: by what it defines."""
    defined = {getattr(node, "name", None) for node in ast.parse(Path(find_spec(module).origin).read_text()).body}
    return f"there is no {module}.{rest[0]}" if rest and rest[0] not in defined else None


def faults(names):
    return {name: fault for name in sorted(names) if (fault := fault_of(name)) is not None}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_in_documents(path):
    assert faults(documented(path)) == {}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_names_in_examples(path):
    assert faults(names_in(path.read_text())) == {}


def test_names_in_docstrings():
    mentioned = {name for path in DOCSTRINGS for name in in_docstrings(path)}
    assert len(mentioned) > 20
    assert faults(mentioned) == {}


def test_names_in_model_cards():
    cards = [path for path in DOCSTRINGS if "card" in path.read_text()]
    mentioned = {
        name
        for path in cards
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for name in names_in(node.value)
    }
    assert "acmix.load" in mentioned
    assert faults(mentioned) == {}


def test_what_is_not_there_is_found():
    code = "acmix.nothing(acmix.ops.mix, acmix.ops._hidden) acmix.ops.portable.nothing examples/acmix.py acmix.ACmix."
    assert faults(names_in(code)) == {
        "acmix.nothing": "there is no acmix.nothing",
        "acmix.ops._hidden": "_hidden is private",
        "acmix.ops.portable.nothing": "there is no acmix.ops.portable.nothing",
    }
