"""How often a run saves, and how much stays."""

import pytest

from acmix import InputError
from acmix.cli import main
from acmix.tasks.loop.progress import Reporting


@pytest.mark.parametrize("minutes", [float("nan"), float("inf"), -1, -1e-9])
def test_minutes_that_are_none(minutes):
    with pytest.raises(InputError, match=f"save_minutes must be a number of minutes, at least 0, got {minutes}"):
        Reporting(save_minutes=minutes)


@pytest.mark.parametrize("count", [0, -1])
def test_a_state_stays(count):
    with pytest.raises(InputError, match=f"keep_states must be at least 1, got {count}"):
        Reporting(keep_states=count)


@pytest.mark.parametrize(
    ("option", "value"),
    [("keep-states", "0"), ("save-minutes", "-1"), ("save-minutes", "nan"), ("save-minutes", "inf")],
)
def test_the_command_line_refuses_them_before_it_begins(tmp_path, capsys, option, value):
    assert main(["train", "digits", "--output", str(tmp_path / "run"), f"--{option}", value]) == 2
    printed = capsys.readouterr().err
    assert printed.replace("_", "-").count(option) == printed.count("\n") == 1
    assert value in printed
    assert list(tmp_path.iterdir()) == []
