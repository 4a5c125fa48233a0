import os
import re
import shlex
import signal

from PIL import Image

from acmix.cli.display.study import StudyDisplay
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

    def stop(*arguments):
        if arguments[2] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(StudyDisplay, "_show_update", stop)
        code, begun, err = call(capsys, *run, *small)
    command = shlex.join(["acmix", *run, *small])
    assert (code, begun.count("accuracy")) == (130, 2)
    said = f"acmix study run: convolution, seed 1, was stopped and is saved; continue with: {command}"
    assert err.splitlines()[-1] == said
    code, out, _ = call(capsys, *shlex.split(command)[1:])
    assert code == 0
    out = begun + out
    assert len(re.findall(r"^seed +[01]  (?:convolution|acmix) +accuracy", out, re.MULTILINE)) == 4
    results, table = tmp_path / "runs" / "study-images" / "study.json", tmp_path / "table.md"
    code, again, _ = call(capsys, *run, *small)
    assert code == 0
    assert again.strip() in out
    code, shown, err = call(capsys, "study", "show", results, "--plot", tmp_path / "plot.png")
    assert (code, err) == (0, "")
    assert shown in out
    assert call(capsys, "study", "show", results.parent, "--table", table) == (0, "", "")
    assert table.read_text() == shown
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
