"""A run that all tests of the command line look at."""

import pytest

from acmix.cli import main
from tests.commands import FAST


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "digits", *FAST, "--output", str(output)]) == 0
    return output / "best.safetensors"
