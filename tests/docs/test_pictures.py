"""Pictures of the documents are what their programs draw."""

import importlib.util

import pytest

from tests.docs.blocks import ROOT

PICTURES = ROOT / "docs/pictures"


def load(name):
    specification = importlib.util.spec_from_file_location(name, PICTURES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["shifts.svg", "windows.svg", "stages.svg"])
def test_pictures_of_the_derivation(name):
    derivation = load("derivation")
    assert sorted(derivation.DRAWINGS) == ["shifts.svg", "stages.svg", "windows.svg"]
    assert derivation.DRAWINGS[name]().alone() == (PICTURES / name).read_bytes()
