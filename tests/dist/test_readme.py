"""The wheel in an empty environment, as a new user installs it: the README's programs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.dist

ROOT = Path(__file__).parents[2]
PROGRAMS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of an environment that holds the wheel, and what it asks for."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = (ROOT / "dist").glob("*.whl")
    uv = str(Path(sys.executable).with_name("uv"))
    for arguments in (
        ["venv", "--python", sys.executable, "fresh"],
        ["pip", "install", "--python", "fresh/bin/python", f"acmix[train,export] @ {wheel.as_uri()}"],
    ):
        subprocess.run([uv, *arguments, "--quiet"], cwd=folder, check=True)  # noqa: S603
    return folder / "fresh/bin"


def run(command, folder):
    # Nothing of this checkout, nor of what tests set, but that threads do not wait on cores that others compute on.
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "OMP_WAIT_POLICY": "passive"}
    environment["PYTHONWARNINGS"] = "error::UserWarning:acmix"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_programs_of_the_readme(installed, tmp_path):
    python = str(installed / "python")
    where = run([python, "-c", "import acmix; print(acmix.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    operator, training = (run([python, "-c", program], tmp_path) for program in PROGRAMS)
    assert "convolutions replaced\n" in operator
    assert (tmp_path / "network.onnx").is_file()
    assert re.search(r"\d% after [12] epochs, see runs/digits/report.html", training)
    assert (tmp_path / "runs/digits/report.html").is_file()


def test_the_command(installed, tmp_path):
    acmix = str(installed / "acmix")
    assert run([acmix, "--version"], tmp_path).startswith("acmix ")
    assert "cpu" in run([acmix, "info"], tmp_path)
