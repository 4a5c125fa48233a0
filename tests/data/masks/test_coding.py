"""What mask values stand for: known, said, or refused."""

import numpy as np
import pytest

from acmix import InputError
from acmix.data.masks.coding import IGNORED, coding
from acmix.data.masks.legends import Legend

NAMES = Legend("classes.txt", ("sky", "sea", "sand"))


def found(*values):
    return lambda: np.array(values, np.int64)


def unread():
    raise AssertionError("masks are not to be read")


def test_values_without_a_file_are_their_own_names():
    known = coding(None, None, found(0, 1, 7))
    assert known.classes == ("0", "1", "7")
    np.testing.assert_array_equal(known.decode(np.array([[7, 0]])), [[2, 0]])


@pytest.mark.parametrize("value", [-1, 65_536, 10**30])
def test_what_no_mask_can_hold_is_refused(value):
    with pytest.raises(InputError, match=f"ignore_value must be 0 to 65535, got {value}"):
        coding(None, value, unread)


@pytest.mark.parametrize("value", [255, 65_535])
def test_the_largest_value_must_be_said_to_be_ignored_where_nothing_names_classes(value):
    with pytest.raises(InputError, match=f"ignore_value must be given.*--ignore-value {value}"):
        coding(None, None, found(0, 1, value))
    with pytest.raises(InputError, match="ignore_value must be given"):
        coding(None, 0, found(0, 1, 2, value))
    known = coding(None, value, found(0, 1, value))
    assert known.classes == ("0", "1")
    np.testing.assert_array_equal(known.decode(np.array([value, 1])), [IGNORED, 1])


def test_names_stand_for_values_from_zero_and_255_says_nothing():
    known = coding(NAMES, None, unread)
    np.testing.assert_array_equal(known.decode(np.array([0, 2, 255])), [0, 2, IGNORED])


def test_a_value_without_a_class_is_named_with_what_may_have_been_meant():
    with pytest.raises(ValueError, match=r"value 3 in 2 pixels.*--ignore-value 0"):
        coding(NAMES, None, unread).decode(np.array([1, 3, 3]))


def test_names_stand_for_values_from_one_where_zero_is_ignored_and_masks_show_it():
    known = coding(NAMES, 0, found(0, 1, 2, 3))
    np.testing.assert_array_equal(known.decode(np.array([0, 1, 3])), [IGNORED, 0, 2])
    assert known.classes == NAMES.names


def test_names_of_one_or_zero_are_not_guessed():
    """Of [background, cat, dog] with values 0 to 2, 1 would be taken for background."""
    with pytest.raises(InputError, match="leaves open"):
        coding(NAMES, 0, found(0, 1, 2))


def test_a_class_may_be_ignored_by_its_name_or_value():
    by_name, by_value = coding(NAMES, "sea", unread), coding(NAMES, 1, unread)
    assert by_name.classes == by_value.classes == ("sky", "sand")
    np.testing.assert_array_equal(by_name.decode(np.array([0, 1, 2])), [0, IGNORED, 1])


def test_a_class_at_255_is_a_class():
    known = coding(Legend("classes.json", ("back", "front"), (0, 255)), None, unread)
    np.testing.assert_array_equal(known.decode(np.array([255, 0])), [1, 0])
    with pytest.raises(ValueError, match="value 7"):
        known.decode(np.array([7]))


def test_labels_follow_other_classes():
    known = coding(NAMES, None, unread).with_classes(("sand", "stone", "sky", "sea"))
    np.testing.assert_array_equal(known.decode(np.array([0, 1, 2, 255])), [2, 3, 0, IGNORED])


@pytest.mark.parametrize("ignore", ["mountain", 0])
def test_what_is_ignored_must_be_there(ignore):
    legend = Legend("class_dict.csv", ("a", "b"), (0, 0xFF0000), colours=True)
    with pytest.raises(InputError, match="ignore_value must"):
        coding(legend, ignore, unread)


def test_one_class_is_none():
    with pytest.raises(InputError, match="at least two classes"):
        coding(None, 0, found(0, 1))


def test_pictures_are_no_masks():
    with pytest.raises(InputError, match="are they masks"):
        coding(None, None, found(*range(1500)))
