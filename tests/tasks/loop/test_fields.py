"""What settings may be, in numbers and in words."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acmix import InputError
from acmix.tasks.loop.fields import Range, check_setting, settings_of

RANGES = {
    "at least 1": Range(1),
    "positive": Range(0, above=True),
    "above 2": Range(2, above=True),
    "0 to 1": Range(0, 1),
    "0 to below 1": Range(0, 1, below=True),
    "above 0, at most 1": Range(0, 1, above=True),
    "between 0 and 1": Range(0, 1, above=True, below=True),
}


@pytest.mark.parametrize("words", RANGES)
def test_a_range_says_in_words_what_it_holds(words):
    found = RANGES[words]
    assert str(found) == words
    assert (found.low in found) == (not words.startswith(("positive", "above", "between")))
    if found.high < math.inf:
        assert (found.high in found) == (not ("below" in words or "between" in words))


@given(st.sampled_from(list(RANGES.values())), st.floats())
def test_a_range_holds_finite_numbers_between_its_ends(bounds, number):
    assert (number in bounds) <= (math.isfinite(number) and bounds.low <= number <= bounds.high)
    assert bounds.low + 0.5 in bounds or bounds.above


@dataclass(frozen=True)
class Cake:
    """A cake.

    Attributes:
        eggs: How many,
            large ones.
        sugar: In grammes.
        taste: Of it all.
        cream: Whipped.
        name: On top.
    """

    eggs: Annotated[int, Range(1)]
    sugar: Annotated[float | None, Range(0, 500)] = None
    taste: Literal["sweet", "sour"] = "sweet"
    cream: bool = False
    name: str | None = None


def test_settings_are_described_once():
    found = settings_of(Cake)
    assert {name: each.in_words for name, each in found.items()} == {
        "eggs": "a whole number, at least 1",
        "sugar": "a number, 0 to 500, or none; default: none",
        "taste": "one of sweet, sour; default: sweet",
        "cream": "true or false; default: false",
        "name": "text or none; default: none",
    }
    assert found["eggs"].help == "How many, large ones."


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("sugar", "1e-3", 0.001),
        ("sugar", 3, 3.0),
        ("sugar", np.float32(0.5), 0.5),
        ("sugar", "none", None),
        ("eggs", np.int64(3), 3),
        ("name", "none", None),
        ("name", "1", "1"),
    ],
)
def test_a_value_becomes_what_is_meant(name, value, meant):
    found = check_setting(Cake, name, value)
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("eggs", 0, "eggs must be at least 1, got 0"),
        ("eggs", True, "eggs must be a whole number, at least 1, got True"),
        ("eggs", "none", "eggs must be a whole number, at least 1, got 'none'"),
        ("eggs", 2.0, "eggs must be a whole number, at least 1, got 2.0"),
        ("sugar", math.nan, "sugar must be 0 to 500, got nan"),
        ("sugar", "much", "sugar must be a number, 0 to 500, or none, got 'much'"),
        ("taste", "bitter", "taste must be one of sweet, sour, got 'bitter'"),
        ("cream", 1, "cream must be true or false, got 1"),
        ("egg", 1, "there is no setting 'egg'; the nearest are eggs"),
        ("milk", 1, "there is no setting 'milk'; acmix recipes --settings lists all"),
    ],
)
def test_other_values_are_refused(name, value, rule):
    with pytest.raises(InputError, match=f"^{rule}$"):
        check_setting(Cake, name, value)
