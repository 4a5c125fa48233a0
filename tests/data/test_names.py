"""Names and files as lists have them, without an object for each."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acmix.data.names import Files, Names

# Any code points: lone surrogates stand for bytes of file names that are not UTF-8.
TEXTS = st.lists(st.text(st.characters()), max_size=20)
ODD = ["", "a\nb", os.fsdecode(b"caf\xe9.jpg"), "\ud800", "\ud83d\ude00", "\U0001f600", "\0", "\u6c34" * 5000, "", "a"]


@given(TEXTS, st.data())
def test_a_sequence_of_texts(texts, data):
    names = Names(texts)
    assert (len(names), list(names)) == (len(texts), texts)
    assert list(pickle.loads(pickle.dumps(names))) == texts  # noqa: S301
    chosen = data.draw(st.lists(st.integers(-len(texts), len(texts) - 1), max_size=30) if texts else st.just([]))
    assert list(names.take(chosen)) == [names[index] for index in chosen] == [texts[index] for index in chosen]
    begin, end = data.draw(st.tuples(st.integers(-25, 25), st.integers(-25, 25)))
    assert list(names[begin:end]) == texts[begin:end]
    assert list(names[::-2]) == texts[::-2]


def test_odd_texts_come_back():
    assert list(Names(ODD)) == ODD
    assert list(Names(ODD).take(range(1, 4)).take([2, 0])) == ["\ud800", "a\nb"]
    assert list(Names(iter(["one"]))) == ["one"]


def test_an_index_beyond_the_end_is_refused():
    for index in (3, -4):
        with pytest.raises(IndexError):
            Names("abc")[index]
    with pytest.raises(IndexError):
        Names([])[0]
    with pytest.raises(IndexError):
        Names("abc").take([1, 3])


def test_equality_is_that_of_the_texts():
    assert Names("ab") == Names("xab")[1:]
    assert Names("ab") != Names(["ab"])
    assert Names("ab") != ["a", "b"]


def test_paths_are_made_of_names():
    files = Files(Path("/data"), Names(["a/1.png", os.fsdecode(b"b/\xe9.png")]))
    assert list(files) == [Path("/data/a/1.png"), Path(os.fsdecode(b"/data/b/\xe9.png"))]
    assert (len(files), files[-1], list(files.take([1]))) == (2, files[1], [files[1]])
    assert Files(Path(), Names(["/data/c.png", "d.png"]))[0] == Path("/data/c.png")
    assert Files(Path(), Names(["/data/c.png", "d.png"]))[1] == Path("d.png")
