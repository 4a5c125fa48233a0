import pytest
from rich import get_console

from acmix.bench import Comparison, Measurement, Timing
from acmix.cli.display import bench

TIMING = Timing(fastest=1.1126, lower=1.12, median=1.1623, upper=1.2, runs=9)


@pytest.mark.parametrize("columns", [80, 200])
def test_nothing_of_a_comparison_is_cut(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(get_console(), "_width", columns)
    names = [f"acmix_resnet50, {form}" for form in ("contiguous", "channels_last")]
    measured = {name: Measurement(TIMING, TIMING, 90 * 10**6, 739 * 10**6, 1e-7) for name in names}
    bench.show_comparison(Comparison("a case", {"networks": ["acmix_resnet50"], "batch": 8}, names[0], measured))
    out = capsys.readouterr().out
    assert "…" not in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= columns
    for words in ("1112.6", "(1162.3)", "90 / 739", "channels_last", "7.2 images/s"):
        assert words in out
    assert any("1112.6 (1162.3)" in line for line in lines) == (columns == 200)
