"""Names without wrappers, and what stands before them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acmix.checkpoints.names import prefix_of, without_wrappers

PARTS = st.sampled_from(["conv", "weight", "0", "layer1", "model"])
NAMES = st.lists(st.lists(PARTS, min_size=1, max_size=4).map(".".join), min_size=1, max_size=6, unique=True)
WRAPPERS = ["_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"]


@given(NAMES, st.data())
def test_wrappers_go_wherever_they_stand(names, data):
    def wrapped(name):
        parts = name.split(".")
        for _ in range(data.draw(st.integers(0, 3))):
            parts.insert(data.draw(st.integers(0, len(parts))), data.draw(st.sampled_from(WRAPPERS)))
        return ".".join(parts)

    begin = "module." * data.draw(st.integers(0, 2))
    plain = without_wrappers([begin + wrapped(name) for name in names])
    assert list(plain.values()) == names


def test_a_module_of_that_name_stays_unless_all_begin_so():
    assert list(without_wrappers(["module.a", "b"]).values()) == ["module.a", "b"]
    assert without_wrappers([]) == {}


def test_names_that_become_one():
    with pytest.raises(ValueError, match="a and _orig_mod.a are both a without their wrappers"):
        without_wrappers(["a", "_orig_mod.a"])


@given(NAMES, st.lists(PARTS, max_size=3))
def test_prefixes_are_found_by_the_names_behind(names, before):
    unlike = {f"net_{name}" for name in names}
    prefix = "".join(f"{part}." for part in before)
    assert prefix_of(unlike, [prefix + name for name in unlike] + ["loss.weight"]) == prefix


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["weight", "bias"], ""),
        (["a.weight", "a.bias", "b.weight"], "a."),
        (["weight", "bias", "a.weight", "a.bias"], ""),
        (["weight", "a.weight", "a.bias"], "a."),
        (["other"], ""),
        ([], ""),
    ],
)
def test_most_names_decide_and_none_is_preferred(names, prefix):
    assert prefix_of({"weight", "bias"}, names) == prefix


def test_two_prefixes_are_refused():
    with pytest.raises(ValueError, match="2 times, under 'a.', 'b.'; keep those of one"):
        prefix_of({"weight"}, ["a.weight", "b.weight"])
