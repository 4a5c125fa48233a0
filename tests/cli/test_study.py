import re

from PIL import Image

from tests.commands import call


def test_study_is_run_and_drawn_anew(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in ("ant", "bee"):
        for index in range(4):
            path = tmp_path / "images" / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (60 * index, 0, 90 * (label == "bee"))).save(path)
    run = ["study", "run", "images", "--variants", "convolution,acmix", "--seeds", "2", "--epochs", "1"]
    small = ["--set", "image_size=16", "--batch-size", "4", "--seconds", "0.01", "--workers", "0"]
    code, out, err = call(capsys, *run, *small)
    assert (code, err) == (0, "")
    assert len(re.findall(r"^seed +[01]  (?:convolution|acmix) +accuracy", out, re.MULTILINE)) == 4
    results, table = tmp_path / "runs" / "study-images" / "study.json", tmp_path / "table.md"
    code, again, err = call(capsys, *run, *small)
    assert (code, err) == (0, "")
    assert again.strip() in out
    code, shown, err = call(capsys, "study", "show", results, "--plot", tmp_path / "plot.png")
    assert (code, err) == (0, "")
    assert shown in out
    assert call(capsys, "study", "show", results, "--table", table) == (0, "", "")
    assert table.read_text() == shown
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
