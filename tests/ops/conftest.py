"""What tests of the kernels share."""

import pytest
import torch


@pytest.fixture
def threads():
    """Set PyTorch's number of threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def _poisoned_memory():
    """NaN in all memory that PyTorch hands out."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
