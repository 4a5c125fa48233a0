"""What every page shares: its templates, and pictures within it, so that it opens alone and fetches nothing."""

import base64
import io

import jinja2
from PIL import Image


def template(name: str) -> jinja2.Template:
    """A template of this package; what it shows is escaped, and what it lacks is an error."""
    loader = jinja2.PackageLoader("acmix.pages")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(name)


def encoded(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    data = io.BytesIO()
    picture.save(data, format="PNG")
    return data.getvalue()


def png(picture: Image.Image | bytes) -> str:
    """The address of a picture, or of a PNG file, within a page."""
    return _address("image/png", picture if isinstance(picture, bytes) else encoded(picture))


def svg(text: str) -> str:
    """The address of a drawing within a page, where it cannot run scripts."""
    return _address("image/svg+xml", text.encode())


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
