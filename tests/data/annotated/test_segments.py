import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from hypothesis import given, settings
from hypothesis import strategies as st

from acmix import InputError
from acmix.data.annotated.segments import Polygons, Runs, check_runs, run_lengths


def masks(most=40):
    sides = st.tuples(st.integers(1, most), st.integers(1, most), st.integers(0, 2**32 - 1), st.floats(0, 1))
    return sides.map(lambda given: np.random.default_rng(given[2]).random(given[:2]) < given[3])


@given(masks())
@settings(deadline=None)
def test_the_text_of_run_lengths_is_that_of_coco(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = encoded["counts"] if isinstance(encoded["counts"], str) else encoded["counts"].decode()
    counts = run_lengths(text)
    assert check_runs(counts, *mask.shape) == ""
    found = Runs(counts)
    assert np.array_equal(found.mask(*mask.shape), mask)
    assert found.area == mask.sum()


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_is_run_lengths_or_refused(text):
    try:
        counts = run_lengths(text)
    except InputError:
        return
    assert len(counts) <= len(text)


@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=60), st.integers(1, 50), st.integers(1, 50))
@settings(deadline=None)
def test_run_lengths_that_pass_make_a_mask(text, height, width):
    try:
        counts = run_lengths(text)
    except InputError:
        return
    if not check_runs(counts, height, width):
        assert Runs(counts).mask(height, width).shape == (height, width)


@pytest.mark.parametrize("counts", [[-1, 1202], [1201], [1200, 1], [], [2**62, 2**62, 2**62, 2**62, 1200]])
def test_run_lengths_of_other_pixels_do_not_fit(counts):
    assert check_runs(np.array(counts, np.int64), 30, 40)


@given(st.lists(st.tuples(st.floats(-20, 60), st.floats(-20, 60)), min_size=3, max_size=12))
@settings(deadline=None)
def test_masks_of_polygons_are_those_of_coco(points):
    ring = np.array(points)
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([ring.ravel().tolist()], 30, 40)))
    assert np.array_equal(Polygons((ring,)).mask(30, 40), expected.astype(bool))


def test_a_polygon_has_the_area_and_box_of_its_corners():
    square = Polygons((np.array([[1, 2], [5, 2], [5, 8], [1, 8.0]]), np.array([[10, 10], [12, 10], [10, 12.0]])))
    assert square.area == 26
    assert square.box == (1, 2, 12, 12)
    assert square.to_coco(20, 20)[0] == [1, 2, 5, 2, 5, 8, 1, 8]
    assert square.mask(20, 20).sum() in range(24, 29)
