import os
import subprocess
from pathlib import Path

import pytest

from acmix.shell import command, quoted

NAMES = [
    "plain",
    "my run",
    "it's $mine",
    "train-{000000..000002}.tar",
    "caf\udce9",
    "a\nb\tc",
    "\udcff'\\x41",
    "größe",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_takes_words_apart_again(name):
    line = quoted([name, "next"])
    assert line.isprintable()
    program = ["/bin/bash", "-c", f"printf '%s\\0' {line}"]
    seen = subprocess.run(program, check=True, capture_output=True)  # noqa: S603
    assert seen.stdout == os.fsencode(name) + b"\0next\0"


def test_options_stand_where_they_are_given_and_names_are_not_taken_for_them():
    assert command("study show", Path("a b"), plot="x.svg", resume=True, weights=None) == (
        "acmix study show 'a b' --plot x.svg --resume"
    )
    assert command("train", "-images", output=Path("-x"), learning_rate=0.003) == (
        "acmix train ./-images --output ./-x --learning-rate 0.003"
    )
