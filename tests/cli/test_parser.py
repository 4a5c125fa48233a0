"""Functions as commands: what of a signature and a docstring becomes which argument."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from acmix.cli.commands import COMMANDS, GROUPS
from acmix.cli.parser import build_parser
from acmix.cli.wording import SettingsOf


@dataclass
class Cake:
    """A cake.

    Attributes:
        eggs: How many eggs,
            large ones.
        with_cream: Whipped.
        taste: Of it all.
    """

    eggs: int | None = None
    with_cream: bool = False
    taste: Literal["sweet", "sour"] = "sweet"


def bake(
    recipe: Path,
    extras: list[Path],
    *,
    minutes: int = 30,
    note: str | None = None,
    eat: bool = False,
    tags: list[str] | None = None,
    **cake: Annotated[Any, SettingsOf((Cake,), ("eggs",))],
) -> int:
    """Bake a cake.

    Args:
        recipe: What to follow.
        extras: What to add.
        minutes: In the oven.
        note: For later.
        eat: At once.
        tags: Of it.
        cake: The cake itself.
    """
    del recipe, extras, minutes, note, eat, tags, cake
    return 0


@pytest.fixture
def parser():
    return build_parser({"bake": bake}, {})


LEAVES = [
    (name, *rest)
    for name, content in COMMANDS.items()
    for rest in ([(each,) for each in content] if isinstance(content, dict) else [()])
]


@pytest.mark.parametrize("named", [(), ("bench",), ("study",), *LEAVES], ids=" ".join)
def test_a_command_alone_has_the_help_that_it_has_among_all(capsys, named):
    texts = []
    for parser in (build_parser(COMMANDS, GROUPS), build_parser(COMMANDS, GROUPS, named)):
        with pytest.raises(SystemExit):
            parser.parse_args([*named, "--help"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != ""


def parsed(parser, *arguments):
    return vars(parser.parse_args(["bake", "book.txt", "nuts", *arguments])["bake"])


def test_what_was_not_given_is_left_to_the_function(parser):
    plain = {"recipe": Path("book.txt"), "extras": [Path("nuts")], "minutes": 30, "eat": False}
    assert parsed(parser) == plain
    fields = ["--eggs", "3", "--with-cream", "--taste", "sour"]
    given = parsed(parser, "figs", *fields, "--eat", "--tags", "a", "--tags", "b", "--note", "1")
    own = {"eggs": "3", "with_cream": True, "taste": "sour"}
    more = {"extras": [Path("nuts"), Path("figs")], "eat": True, "tags": ["a", "b"], "note": "1"}
    assert given == plain | own | more


def test_help_is_in_the_docstrings(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["bake", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "settings: What decides a run's result; recipes are sets of them. --eggs EGGS How many" in words
    assert "How many eggs, large ones (a whole number or none; default: none). more settings: --with-cream" in words
    assert "--with-cream, --no-with-cream Whipped (true or false; default: false)." in words
    assert "RECIPE What to follow. EXTRA" in words
    assert "--minutes MINUTES In the oven (default: 30)." in words
