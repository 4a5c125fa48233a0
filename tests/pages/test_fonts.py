import io

import numpy as np
import pytest
from PIL import Image

from acmix.pages import fonts, lettering
from acmix.pages.drawings import drawing
from acmix.pages.lettering import lettered, unwritable

# What Debian's packages fonts-noto-cjk, fonts-noto-color-emoji and fonts-noto-core bring.
INSTALLED = {
    "NotoSansCJK-Regular.ttc": ["三角形", "한국어", "ひらがな"],
    "NotoColorEmoji.ttf": ["\U0001f436", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467"],
    "NotoSansDevanagari-Regular.ttf": ["हिन्दी"],
}


def needs(*files):
    if lost := set(files) - set(fonts.files()):
        pytest.skip(f"fonts are missing: {', '.join(sorted(lost))}")


def drawn(words, colour="white"):
    picture = Image.new("RGB", (300, 40))
    words.draw(picture, (5, 20), colour)
    return np.asarray(picture)


def test_every_font_has_latin_letters_or_says_so():
    for font in fonts.fonts(20):
        assert not font.has("\U0010fffe")
        assert font.length("ab") >= font.length("a") > 0
    assert next(fonts.fonts(20)).has("a")
    assert not next(fonts.fonts(20)).has("三")


def test_another_file_is_no_font():
    with pytest.raises(OSError, match="resource"):
        fonts.Font("there is no such font.ttf", 12)


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, names in INSTALLED.items() for name in names])
def test_names_are_drawn_where_a_font_is_installed(file, name):
    needs(file)
    found = lettered(name, "class 2", 20)
    assert found.text.replace("\ufe0f", "") == name
    assert 10 < found.length < 120
    pixels = drawn(found)
    assert pixels.any()
    assert not pixels[:, :4].any()
    assert not pixels[:, 5 + round(found.length) + 3 :].any()
    assert not unwritable([name])


def test_emoji_have_their_colours():
    needs("NotoColorEmoji.ttf")
    assert np.ptp(drawn(lettered("\U0001f436", "class 2", 20)), axis=2).max() > 100
    assert np.ptp(drawn(lettered("cat", "", 20)), axis=2).max() == 0


def test_letters_of_several_fonts_stand_in_one_line():
    needs("NotoSansCJK-Regular.ttc", "NotoColorEmoji.ttf")
    found = lettered("cat \U0001f436 三角形", "class 2", 20)
    assert found.text == "cat \U0001f436 三角形"
    assert len(found.parts) == 4
    # Rows of letters without parts below the line end where they stand.
    rows = [drawn(lettered(text, "", 20)).any((1, 2)).nonzero()[0].max() for text in ("cat", "é", "三")]
    assert np.ptp(rows) <= 2


def test_what_is_read_from_right_to_left_begins_on_the_right():
    needs("NotoSansCJK-Regular.ttc")
    found = [text.strip() for text, _ in lettered("مربع 三角形 red", "", 20).parts if text.strip()]
    assert found == ["三角形", "red", "مربع"]


def test_without_a_library_of_shapes_names_that_need_it_are_replaced(monkeypatch):
    monkeypatch.setattr(lettering, "_shapes", lambda: False)
    assert lettered("عربي", "class 2", 20).text == "class 2"
    assert lettered("Größe", "class 2", 20).text == "Größe"


def test_bars_of_any_names():
    names = ["cat", "三角形", "عربي", "\U0001f436", "", "x" * 10_000]
    with Image.open(
        io.BytesIO(drawing(Image.new("RGB", (300, 300)), [(name, 0.1) for name in names], most=6))
    ) as found:
        assert found.height > 300
