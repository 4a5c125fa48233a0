"""The examples as modules."""

import importlib.util
import pathlib
import sys

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def load_example(name):
    """An example, which may import those beside it."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLES))
    return module
