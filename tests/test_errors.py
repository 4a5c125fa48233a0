import os

import numpy as np
import pytest

from acmix.errors import (
    InputError,
    PreemptedError,
    TrainingError,
    check_input_size,
    check_least,
    counted,
    few,
    first_line,
    in_one_line,
    meant,
    nearest,
    printable,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\xe9.jpg"),
        ("café/猫 1.jpg", "café/猫 1.jpg"),
        ("a\nb\t\x1b[31m\x85\u2028", r"a\nb\t\x1b[31m\x85\u2028"),
        ("\ud800\udc00", r"\ud800\udc00"),
        ("a\ufffe\uffff", r"a\ufffe\uffff"),
        ("", ""),
        (7, "7"),
    ],
)
def test_every_name_can_be_shown(name, shown):
    assert printable(name) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("kind", [InputError, TrainingError, PreemptedError])
def test_messages_are_one_line_that_can_be_printed(kind):
    name = os.fsdecode(b"caf\xe9")
    error = kind(f"{name}: cannot be read (line one\nline two)")
    assert str(error) == r"caf\xe9: cannot be read (line one line two)"
    assert issubclass(kind, ValueError if kind is InputError else RuntimeError)


def test_what_was_meant_is_near_or_what_there_is():
    known = ("small", "resnet50", "resnet50_a2")
    assert meant("resnet51", known) == "the nearest are resnet50, resnet50_a2"
    assert meant("qqq", known) == "there are small, resnet50, resnet50_a2"
    assert meant("qqq", known, ["small"]) == "there are small"


def test_nearest_names_are_alike_or_what_is_abbreviated():
    known = ["learning_rate", "batch_size", "layer_decay", "mixup"]
    assert nearest("lr", known) == "learning_rate"
    assert nearest("mixupp", known) == "mixup"
    assert nearest("", known) == nearest("qqq", known) == ""


def test_counts_are_in_words():
    assert [counted(number, "run") for number in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]
    words = [counted(2, noun) for noun in ("class", "batch", "epoch", "branch", "box")]
    assert words == ["2 classes", "2 batches", "2 epochs", "2 branches", "2 boxes"]


def test_lists_of_names_are_shortened():
    assert few(["a", "b\n"]) == r"a, b\n"
    assert few(list("abcde")) == "a, b, c, d, e"
    assert few(list("abcdef")) == "a, b, c, d, e, ..."


def test_what_others_say_is_cited_in_one_line():
    error = RuntimeError("cannot be done:\n  for one reason\n  or another")
    assert first_line(error) == "cannot be done:"
    assert in_one_line(error) == "cannot be done: for one reason or another"
    assert in_one_line(error, 14) == "cannot be done"
    assert first_line(KeyError()) == in_one_line(KeyError()) == "KeyError"


def test_numbers_are_checked_by_the_names_of_their_arguments():
    check_least(1, top=1, batch_size=None, images=np.int64(1))
    with pytest.raises(InputError, match="^batch_size must be at least 1, got 0$"):
        check_least(1, top=5, batch_size=0)
    with pytest.raises(InputError, match="^workers must be a whole number of at least 0, got '2'$"):
        check_least(0, workers="2")


@pytest.mark.parametrize("size", [64, None, (64, 64), (3, 0, 8), (3, 8.0, 8), (1, 3, 8, 8), "3x8"])
def test_sizes_of_images_are_three_whole_numbers(size):
    with pytest.raises(InputError, match=r"input_size must be three positive sizes \(C, H, W\), got "):
        check_input_size(size)
    check_input_size(np.zeros((3, 8, 9)).shape)
    check_input_size([np.int64(3), 8, 9])
