"""The site's sources: the repository's documents, brought into one folder, their links along with them."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from posixpath import normpath, relpath

ROOT = Path(__file__).parents[2]
LANGUAGES = ("en", "zh")
# Documents that do not lie in docs/, and the pages that they become.
PAGES = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh/index.md",
    "DESIGN.md": "design.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
}
# Modules of the package that have a page, which links to their source lead to.
MODULES = (
    *("acmix", "acmix.ops", "acmix.models", "acmix.surgery", "acmix.checkpoints", "acmix.data", "acmix.export"),
    *("acmix.explain", "acmix.study", "acmix.bench", "acmix.accounting"),
    *("acmix.integrations.ultralytics", "acmix.integrations.torch_pruning"),
)
CODE = re.compile(r"^```.*?^```[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()([^)#\s]+)((?:#[^)\s]*)?)(?=\))")
# A line that goes on in Chinese: no blank stands between its words.
BROKEN = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n *(?=[\u3000-\u9fff\uff00-\uffef])")
# A number and its unit, its interval or the other side of a map stay on one line.
WITHIN = re.compile(r"(?<=\d) (?=%|±|ms\b|s\b|M\b|G\b|[kMGT]i?B\b)|(?<=±) (?=\d)|(?<=\d) x (?=\d)")
# A name of an option in a built page's line, which browsers would break behind its dashes.
OPTION = re.compile(r"(?<=<code>)[^<\n]*--[^<\n]*(?=</code>)")
# Formulas of docstrings, and what stands for their names on a page, which no program sets.
FORMULA = re.compile(r"<p>\.\. math:: (.*?)</p>", re.DOTALL)
SIGNS = {r" \,": "", r"\,": "", r"\quad": "&emsp;", r"\alpha": "&alpha;", r"\beta": "&beta;", r"\sum": "&sum;"}
ABROAD = ("http:", "https:", "mailto:")


class MissingError(Exception):
    """A link leads nowhere."""


def documents() -> dict[str, str]:
    """Documents by the pages that they become, of the English site and, below zh/, of the Chinese one."""
    inner = {path.relative_to(ROOT / "docs").as_posix(): path for path in sorted((ROOT / "docs").glob("**/*.md"))}
    outer = {page: ROOT / name for name, page in PAGES.items() if not name.startswith("README")}
    return {page: path.relative_to(ROOT).as_posix() for page, path in (inner | outer).items()}


def page_of(name: str) -> str | None:
    """The page that a file of the repository becomes, if it becomes one."""
    if name in PAGES:
        return PAGES[name]
    if name.startswith("docs/") and name.endswith(".md"):
        return name.removeprefix("docs/")
    if name.startswith("examples/") and name.endswith(".py"):
        return name.removesuffix(".py") + ".md"
    return next((f"api/{module}.md" for module in MODULES if source_of(module) == name), None)


def source_of(module: str) -> str | None:
    """The file of a module of the package, from the root of the repository; None if there is no such module."""
    path = f"src/{module.replace('.', '/')}"
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (ROOT / file).is_file()), None)


def outside_of_code(text: str, change: Callable[[str], str]) -> str:
    """Change text, but no code."""
    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [change(text[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*parts, change(text[end:])])


def moved(text: str, source: str, page: str, copied: set[str]) -> str:
    """The text of a document as that of a page: links lead to pages, or to copies; what may not be broken is joined.

    Args:
        text: Markdown.
        source: The document, from the root of the repository.
        page: The page that it becomes, from the root of the site.
        copied: Files to copy to files/, to which those are added that the text links.

    Raises:
        MissingError: If a link leads to nothing.
    """

    def target(match: re.Match[str]) -> str:
        to, anchor = match.groups()
        if to.startswith(ABROAD):
            return match.group()
        name = normpath(Path(source).parent.joinpath(to).as_posix())
        if not (ROOT / name).exists():
            raise MissingError(f"{source}: {to} is not there")
        found = page_of(name)
        if found is None:
            copied.add(name)
            found = f"files/{name}"
        return address(page, found) + anchor

    return outside_of_code(text, lambda part: joined(BROKEN.sub("", LINK.sub(target, part))))


def joined(text: str) -> str:
    """Text whose numbers are not broken off from what belongs to them."""
    return WITHIN.sub(lambda blanks: blanks.group().replace(" ", "\u00a0"), text)


def with_whole_options(page: str) -> str:
    """A built page in which no line ends within the name of an option."""
    span = r'<span class="option">\g<0></span>'
    return OPTION.sub(lambda code: re.sub(r"(?<!\S)--[\w-]+", span, code.group()), page)


def with_formulas(page: str) -> str:
    """A built page with the formulas of docstrings as lines of text."""

    def line(formula: re.Match[str]) -> str:
        said = formula.group(1)
        for name, sign in SIGNS.items():
            said = said.replace(name, sign)
        said = re.sub(r"_(?:\{([^}]*)\}|(\w))", r"<sub>\1\2</sub>", said)
        return f'<p class="formula">{said}</p>'

    return FORMULA.sub(line, page)


def language_of(page: str) -> str:
    """The language of a page: each has a site of its own."""
    return "zh" if page.startswith("zh/") else "en"


def address(page: str, to: str) -> str:
    """How a page links to another, or to a file: within a site to its source, else to what is built of it."""
    to = to if language_of(page) == language_of(to) else built(to)
    return relpath(to or ".", Path(page).parent.as_posix()) + "/" * (not to or to.endswith("/"))


def built(page: str) -> str:
    """Where a page lies on the site: every page has a folder of its own."""
    if not page.endswith(".md"):
        return page
    folder = page.removesuffix(".md")
    return folder.removesuffix("index") if folder.endswith("index") else f"{folder}/"


def collect(pages: dict[str, str], into: Path) -> None:
    """Write pages, those of every language in a folder of its own, with the files that they link.

    Args:
        pages: Markdown by page, as `moved` leaves it.
        into: An empty folder.
    """
    for page, text in pages.items():
        path = into / language_of(page) / page.removeprefix("zh/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def copy(names: set[str], into: Path) -> None:
    """Copy files of the repository to files/."""
    for name in sorted(names):
        path = into / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, path)
