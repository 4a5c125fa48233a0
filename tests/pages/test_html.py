import base64
import io
import re
from importlib import resources

import jinja2
import pytest
from PIL import Image

from acmix.data.images import encode_png
from acmix.pages import html, theme


def test_pictures_lie_within_a_page():
    picture = Image.effect_noise((5, 4), 90)
    address = html.png(picture)
    assert address == html.png(encode_png(picture))
    assert address.startswith("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as shown:
        assert shown.tobytes() == picture.tobytes()


def test_what_a_template_lacks_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        html.template("report.html").render()


def test_words_of_a_page_may_be_anything():
    parts = html.template("parts.html").module
    text = str(parts.table("names", "caf\udce9", ["a", "b"], [["<i>\x01", 1.5]]))
    assert "caf\\xe9" in text
    assert "&lt;i&gt;\\x01</th>" in text
    assert "1.5</td>" in text
    text.encode()


def test_styles_have_no_colours_of_their_own():
    templates = resources.files("acmix.pages").joinpath("templates")
    for path in templates.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?=[^{]*[;}])|rgba?\(|hsla?\(", text), path.name
        assert set(re.findall(r"var\(--([\w-]+)", text)) <= {*theme.COLOURS}, path.name
    sheet = html.style_sheet()
    for name, (light, dark) in theme.COLOURS.items():
        both = re.findall(rf"--{name}: (\S+);", sheet)
        assert both == [light, dark]
        assert sheet.index(light) < sheet.index("@media screen and (prefers-color-scheme: dark)") < sheet.rindex(dark)
