import os

import pytest

from acmix.cli import outputs
from acmix.errors import InputError
from tests.commands import call

# Nobody may write here, not even root.
SEALED = "/sys"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["bench", "layer", "--output", f"{SEALED}/a.json"], "--output"),
        (["bench", "scaling", "pixels", "--plot", f"{SEALED}/a.svg"], "--plot"),
        (["study", "show", "none.json", "--table", f"{SEALED}/a.md"], "--table"),
        (["compare", "none", "--output", f"{SEALED}/a.html"], "--output"),
        (["report", "none", "--output", f"{SEALED}/a.html"], "--output"),
        (["explain", "none", "a.png", "--out", f"{SEALED}/a/b"], "--output"),
        (["export", "none", f"{SEALED}/a.onnx"], "OUTPUT"),
        (["export", "none", f"{SEALED}/folder"], "OUTPUT"),
    ],
)
def test_places_that_cannot_be_written_are_refused_before_any_work(capsys, arguments, option):
    if not os.path.isdir(SEALED):
        pytest.skip("there is no folder that nobody may write")
    code, out, err = call(capsys, *arguments)
    place = next(argument for argument in arguments if argument.startswith(SEALED))
    assert code == 2
    assert not out
    assert err.startswith(f"acmix {' '.join(arguments[: 1 if arguments[0] not in ('bench', 'study') else 2])}: error: ")
    assert f"{option} {place} cannot be written: {SEALED}: " in err
    assert len(err.splitlines()) == 1


def test_checks_leave_nothing(tmp_path):
    outputs.check_file("--output", tmp_path / "a.json")
    outputs.check_folder("--out", tmp_path / "a" / "b" / "c")
    assert not list(tmp_path.iterdir())


def test_kinds_are_told_apart(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="--out must be a folder, got the file"):
        outputs.check_folder("--out", file)
    with pytest.raises(InputError, match="--out .*b cannot be written: .*file is not a folder"):
        outputs.check_folder("--out", file / "a" / "b")
    with pytest.raises(InputError, match="--output must be a file, got the folder"):
        outputs.check_file("--output", tmp_path)
    with pytest.raises(InputError, match="file is not a folder; make it first"):
        outputs.check_file("--output", file / "a.json")
    with pytest.raises(InputError, match=r"--plot must end in \.png or \.svg"):
        outputs.check_file("--plot", tmp_path / "a.pdf", outputs.PICTURES)
