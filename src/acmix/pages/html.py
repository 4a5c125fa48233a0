"""What every page shares: templates, style, and pictures within it, so that it opens alone and fetches nothing."""

import base64
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from acmix.data.images import encode_png
from acmix.errors import InputError, printable
from acmix.pages import theme
from acmix.pages.theme import Drawing
from acmix.storage import write_atomically


@dataclass(frozen=True)
class Panel:
    """A figure of a page: its title, the drawing, and what else must be known to read it."""

    title: str
    drawing: Drawing
    note: str = ""


def template(name: str) -> jinja2.Template:
    """A template of this package; what it shows is escaped, and what it lacks is an error."""
    loader = jinja2.PackageLoader("acmix.pages")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=_printable
    )
    numbers = itertools.count(1)

    def drawn(drawing: Drawing) -> Markup:
        # A page holds no id twice.
        return Markup(drawing.within(f"figure-{next(numbers)}-"))  # noqa: S704

    environment.filters["drawn"] = drawn
    return environment.get_template(name, globals={"style_sheet": Markup(style_sheet())})  # noqa: S704


def _printable(value: Any) -> Any:
    """What a page can hold: names of files and classes may be anything."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def style_sheet() -> str:
    """The style of every page, in the colours that its reader has set."""
    sheet = resources.files("acmix.pages").joinpath("templates", "pages.css")
    return theme.variables() + sheet.read_text(encoding="utf-8")


def write(name: str, context: Mapping[str, Any], output: Path) -> None:
    """Write a page, whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    text = template(name).render(context)
    try:
        write_atomically(output, text)
    except OSError as error:
        raise InputError(f"output {output} cannot be written: {error.strerror or error}") from error


def as_typed(value: Any) -> str:
    """A value as `--set` takes it, or words where there is none."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def png(picture: Image.Image | bytes) -> str:
    """The address of a picture, or of a PNG file, within a page."""
    content = picture if isinstance(picture, bytes) else encode_png(picture)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
