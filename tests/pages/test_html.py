import base64
import io

import jinja2
import pytest
from PIL import Image

from acmix.pages import html


def test_pictures_lie_within_a_page():
    picture = Image.effect_noise((5, 4), 90)
    address = html.png(picture)
    assert address == html.png(html.encoded(picture))
    assert address.startswith("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as shown:
        assert shown.tobytes() == picture.tobytes()


def test_what_a_template_lacks_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        html.template("report.html").render()
