import pytest
from PIL import Image

from acmix.pages import fonts
from acmix.pages.lettering import lettered, sized, unwritable


@pytest.mark.parametrize("name", ["cat", "Größe 7", "κύκλος", "круг", "عربي"])
def test_names_stay_where_a_font_has_their_letters(name):
    assert lettered(name, "class 2", 14).text == name


def test_letters_that_no_font_has_are_not_drawn_as_boxes(monkeypatch):
    monkeypatch.setattr(fonts, "files", tuple)
    assert lettered("三角形", "class 2", 14).text == "class 2"
    assert lettered("三 of them", "class 2", 14).text == "class 2"


def test_signs_that_no_font_has_are_left_out(monkeypatch):
    monkeypatch.setattr(fonts, "files", tuple)
    assert lettered("cat \U0001f600", "class 2", 14).text == "cat"
    assert lettered("\U0001f600", "class 2", 14).text == "class 2"
    assert lettered("cat\ufe0f", "class 2", 14).text == "cat"


def test_bytes_that_are_no_text_are_escaped():
    assert lettered("\udce9\n", "class 2", 14).text == r"\xe9\n"


@pytest.mark.parametrize("name", ["name " * 50, "عربي " * 50, "三" * 400, "x" * 10**6])
def test_words_fit(name):
    for room in (0, 30, 100):
        found = lettered(name, "class 2", 14, room)
        assert found.length <= room or len(found.text) == 1
    assert lettered(name, "class 2", 14, 100).text.strip("…")


def test_replaced_names_are_told(monkeypatch):
    monkeypatch.setattr(fonts, "files", tuple)
    assert unwritable(["cat", "", "a b"]) == ""
    assert "the letters of 三: " in unwritable(["cat", "三"])
    assert "the letters of 三 and 2 more names: " in unwritable(["cat", "三", "四", "五"])


@pytest.mark.parametrize(
    ("size", "shown"), [((8, 8), (224, 224)), ((4000, 2000), (1024, 512)), ((300, 500), (300, 500))]
)
def test_sizes_that_people_look_at(size, shown):
    assert sized(Image.new("RGB", size)).size == shown
