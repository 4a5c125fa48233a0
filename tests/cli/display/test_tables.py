"""Tables break no word, however narrow the terminal is."""

import re

import pytest
from rich.console import Console

from acmix.cli.display import tables

HEADINGS = ["network", "accuracy, %", "parameters", "multiply-adds, M", "forward, ms an image"]
ROWS = [
    ["convolutions, as many parameters as ACmix", "93.04 ± 1.27", "405,619", "1.86", "0.102"],
    ["attention path alone", "96.82 ± 0.52", "388,162", "2.52", "0.175"],
]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_no_word_and_no_number_is_broken(capsys, monkeypatch, columns):
    monkeypatch.setattr(tables, "get_console", lambda: Console(width=columns))
    tables.print_wide("a title", HEADINGS, ROWS, numbers=True)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    for cell in (*HEADINGS, *ROWS[0], *ROWS[1]):
        assert all(re.search(rf"(^|\s){re.escape(word)}(\s|$)", out, re.MULTILINE) for word in cell.split())
    for number in (*ROWS[0][1:], *ROWS[1][1:]):
        assert number in out
    assert (out.count("network") > 1) == (columns < 80)
    assert out.count("a title") == 1


def test_what_is_wider_than_a_terminal_is_folded_and_kept(capsys, monkeypatch):
    monkeypatch.setattr(tables, "get_console", lambda: Console(width=40))
    tables.print_wide("", ["", "a" * 50], [["b" * 30, "c" * 70]])
    out = capsys.readouterr().out
    assert [out.count(letter) for letter in "abc"] == [50, 30, 70]
    assert max(map(len, out.splitlines())) <= 40
