"""What runtimes are held against. `make test-runtimes` has them; elsewhere there is nothing to collect."""

from importlib.util import find_spec

import pytest

from tests.export.runtimes.networks import NETWORKS

RUNTIMES = ("openvino", "nncf", "executorch", "litert_torch", "coremltools", "ncnn", "pnnx")
collect_ignore_glob = ["test_*.py"] if any(find_spec(name) is None for name in RUNTIMES) else []


def pytest_collection_modifyitems(items):
    for item in items:
        if "runtimes" in item.path.parts:
            item.add_marker(pytest.mark.runtimes)
            # What they warn of is none of ours.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(params=NETWORKS)
def case(request):
    """A network with norms as after training, and an image for it."""
    return NETWORKS[request.param]()
