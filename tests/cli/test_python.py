"""`acmix.train`: the command in Python."""

import os
import re
import shlex
import signal
import textwrap

import pytest

import acmix
from acmix.cli import python
from acmix.pages import report
from acmix.tasks.classification import prepare
from acmix.tasks.loop import fitting
from acmix.tasks.record import read_run
from tests.commands import call

TINY = {"model": "test_resnet.r160_in1k", "image_size": 32, "epochs": 1, "batch_size": 512}


def test_the_lines_of_the_docstring_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"\n\n((?:        .*\n|\n)+)    Args:", acmix.train.__doc__)[1]
    exec(textwrap.dedent(lines), {})  # noqa: S102
    out, err = capsys.readouterr()
    assert re.fullmatch(
        r"\d+\.\d% in epoch \d, report: runs/first/report.html\n\['\d', '\d', '\d'\] torch.Size\(\[3, 10\]\)\n", out
    )
    assert err == ""
    assert (tmp_path / "runs" / "longer" / "report.html").is_file()


def test_it_is_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = acmix.train("digits", recipe="small", **TINY)
    assert result.output.name == "digits-test_resnet.r160_in1k"
    assert result.load().classes == tuple("0123456789")
    assert capsys.readouterr() == ("", "")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    code, out, _ = call(capsys, "train", "digits", *options)
    assert code == 0
    ours, theirs = (read_run(folder) for folder in sorted((tmp_path / "runs").iterdir()))
    assert ours.config["settings"] == theirs.config["settings"]
    assert [row["train_loss"] for row in ours.rows] == [row["train_loss"] for row in theirs.rows]
    # As the command it shows what it does, where it is asked to.
    acmix.train("digits", quiet=False, **TINY)
    shown = capsys.readouterr().out
    assert re.sub(r"-\d\b|\d+\.\d s.*", "", shown).split()[:20] == re.sub(r"-\d\b|\d+\.\d s.*", "", out).split()[:20]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"epoch": 3}, "there is no setting 'epoch'; the nearest are epochs"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": "many"}, "epochs must be a whole number, at least 1, got 'many'"),
        ({"resume": True}, "output must be given: the folder of the run to continue"),
        ({"recipe": "smal"}, "there is no recipe and no file 'smal'; the nearest are small"),
        ({"output": "a.txt"}, "output must be a folder, got the file a.txt"),
    ],
)
def test_wrong_arguments_are_named_as_they_are_here(tmp_path, monkeypatch, arguments, rule):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(acmix.InputError, match=f"^{rule}"):
        acmix.train("digits", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("moment", ["reading images", "measuring the best", "reporting"])
def test_ctrl_c_at_any_moment_says_what_continues(tmp_path, monkeypatch, capsys, moment):
    output = tmp_path / "my run"

    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    place, name = {
        "reading images": (fitting, "checked_images"),
        "measuring the best": (prepare, "classify"),
        "reporting": (report, "write_report"),
    }[moment]
    with monkeypatch.context() as patched:
        patched.setattr(place, name, stop)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
        asked = ["--workers", "0", "--save-minutes", "1.5", "--keep-states", "3", "--check-images", "false"]
        code, _, err = call(capsys, "train", "digits", *options, *asked, "--output", output)
    assert code == 130
    said = err.splitlines()[-1]
    if moment == "reading images":
        assert said == "acmix train: stopped; nothing was trained yet"
        assert not output.exists()
        return
    command = said.rpartition(": ")[2]
    continuing = {
        "measuring the best": f"acmix train: stopped; continue with: acmix train digits {' '.join(asked)} "
        f"--output '{output}' --resume",
        "reporting": f"acmix train: stopped; the run is finished; its report: acmix report '{output}'",
    }[moment]
    assert said == continuing
    assert call(capsys, *shlex.split(command)[1:])[0] == 0
    assert (output / "report.html").is_file()
    assert python.what_continues(output).startswith("the run is finished")
