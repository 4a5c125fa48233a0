"""Pages that the code itself makes: Python from docstrings, commands from their --help, recipes, examples."""

import ast
import contextlib
import io
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any
from unittest import mock

from sources import MODULES, ROOT, source_of

from acmix.cli import main
from acmix.cli.commands import COMMANDS

# Characters of a line of --help that the page shows without scrolling.
COLUMNS = "96"


def pages() -> dict[str, str]:
    """Markdown by page."""
    written = {f"api/{name}.md": of_module(name) for name in MODULES}
    return written | {"commands.md": commands(), "recipes.md": recipes()} | dict(examples())


def read(module: str) -> ast.Module:
    """The source of a module of the package; empty if it is none."""
    file = source_of(module)
    return ast.parse((ROOT / file).read_text() if file else "")


def public_names(module: str) -> list[str]:
    """What a module offers: its `__all__`, else what it defines without an underscore; no modules."""
    defined, listed = [], []
    for node in read(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.append(node.name)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = ast.literal_eval(node.value)
    return [found for found in listed or defined if found[0] != "_" and source_of(f"{module}.{found}") is None]


def origin(module: str, public: str) -> str:
    """Where a name of a module comes from at last, "timm.create_model" for one."""
    for node in ast.walk(read(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if public == (alias.asname or alias.name):
                    return origin(node.module, alias.name)
    return f"{module}.{public}"


def of_module(name: str) -> str:
    """A module's docstring, then every public name with its own; read, not imported, as some need others' packages."""
    lines = [f"# {name}", "", ast.get_docstring(read(name)) or ""]
    for public in public_names(name):
        found = origin(name, public)
        if found.startswith("acmix."):
            lines += ["", f"::: {name}.{public}"]
        else:
            lines += ["", f"## {public}", "", f"This is `{found}`, which knows the networks of acmix."]
    return "\n".join(lines) + "\n"


def help_of(*names: str) -> str:
    """What a command prints for --help."""
    said = io.StringIO()
    in_columns = mock.patch.dict("os.environ", COLUMNS=COLUMNS)
    with in_columns, contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*names, "--help"])
    return said.getvalue().strip()


def commands() -> str:
    """Every command as its --help describes it, groups before what is in them."""

    def sections(content: Mapping[str, Any], *group: str) -> Iterator[str]:
        for name, inner in content.items():
            yield section(*group, name)
            if isinstance(inner, dict):
                yield from sections(inner, *group, name)

    def section(*names: str) -> str:
        return f"## acmix {' '.join(names)}".rstrip() + f"\n\n```text\n{help_of(*names)}\n```\n"

    return "\n".join(
        ["# Command line", "", "What every command prints for `--help`.", "", section(), *sections(COMMANDS)]
    )


def recipes() -> str:
    """Every recipe as it lies in the package, its first comment as its text."""
    lines = [
        "# Recipes",
        "",
        "`acmix train DATA --recipe NAME`; every [setting](settings.md) as an option wins over it.",
        "",
    ]
    for file in sorted(resources.files("acmix.recipes").iterdir(), key=lambda found: found.name):
        if file.name.endswith(".yaml"):
            lines += [f"## {file.name.removesuffix('.yaml')}", "", "```yaml", file.read_text().strip(), "```", ""]
    return "\n".join(lines)


def examples() -> Iterator[tuple[str, str]]:
    """Every program of examples/ with its docstring as text."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        source = path.read_text()
        said = ast.get_docstring(ast.parse(source)) or ""
        text = f'# {path.stem}\n\n{said}\n\n```python title="examples/{path.name}"\n{source}```\n'
        yield f"examples/{path.stem}.md", text
