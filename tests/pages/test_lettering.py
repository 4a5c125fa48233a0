import pytest
from PIL import Image, ImageDraw

from acmix.pages import lettering
from acmix.pages.lettering import fitting, lettered, sized


@pytest.mark.parametrize("name", ["cat", "Größe 7", "κύκλος", "круг", "عربي"])
def test_names_stay_where_a_font_has_their_letters(name):
    assert lettered(name, "class 2", 14)[0] == name


def test_letters_that_no_font_has_are_not_drawn_as_boxes(monkeypatch):
    monkeypatch.setattr(lettering, "_files", tuple)
    assert lettered("三角形", "class 2", 14)[0] == "class 2"
    assert lettered("三 of them", "class 2", 14)[0] == "class 2"


def test_signs_that_no_font_has_are_left_out(monkeypatch):
    monkeypatch.setattr(lettering, "_files", tuple)
    assert lettered("cat \U0001f600", "class 2", 14)[0] == "cat"
    assert lettered("\U0001f600", "class 2", 14)[0] == "class 2"
    assert lettered("cat\ufe0f", "class 2", 14)[0] == "cat"


def test_bytes_that_are_no_text_are_escaped():
    assert lettered("\udce9\n", "class 2", 14)[0] == r"\xe9\n"


def test_words_fit():
    draw = ImageDraw.Draw(Image.new("RGB", (10, 10)))
    text, font = lettered("name " * 50, "", 14)
    assert draw.textlength(fitting(draw, font, text, 100), font=font) <= 100


@pytest.mark.parametrize(
    ("size", "shown"), [((8, 8), (224, 224)), ((4000, 2000), (1024, 512)), ((300, 500), (300, 500))]
)
def test_sizes_that_people_look_at(size, shown):
    assert sized(Image.new("RGB", size)).size == shown
