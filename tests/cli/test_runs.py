import json

import pytest

from tests.commands import call


def test_runs_are_compared(capsys, checkpoint, tmp_path):
    finished, broken = checkpoint.parent, tmp_path / "broken"
    broken.mkdir()
    config = json.loads((finished / "config.json").read_text())
    config["settings"]["epochs"] = 9
    (broken / "config.json").write_text(json.dumps(config))
    code, out, err = call(capsys, "compare", finished, broken, "--output", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert out.startswith("2 runs ")
    assert "unfinished, 0 of 9 epochs" in out
    # No word is broken at 80 columns.
    assert "test_resnet.r160_in1k" in out
    assert call(capsys, "compare", finished)[1].startswith("1 run ")
    assert out.splitlines()[-1] == f"page: {tmp_path / 'page.html'}"
    assert "<svg " in (tmp_path / "page.html").read_text()
    code, out, err = call(capsys, "compare", finished, broken, "--json")
    content = json.loads(out)
    assert (code, err) == (0, "")
    assert content["differing"] == {"epochs": [1, 9]}
    assert [run["finished"] for run in content["runs"]] == [True, False]
    best = json.loads((finished / "summary.json").read_text())["best"]
    assert content["runs"][0]["best"] == pytest.approx(best)
    assert content["runs"][1]["best"] is None
    code, _, err = call(capsys, "compare", finished, "--output", tmp_path / "nowhere" / "page.html")
    assert code == 2
    assert len(err.splitlines()) == 1
