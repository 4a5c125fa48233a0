"""The modules that build the site, which lie in a folder and not in a package."""

import importlib
import sys

from tests.docs.blocks import ROOT


def load_builder(name):
    """A module of docs/builder, which may import those beside it."""
    folder = str(ROOT / "docs/builder")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)
