"""One thread a test process, fixed seeds, and hypothesis without time limits or surprises in CI."""

import gc
import os

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, database=None, max_examples=40)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
torch.set_num_threads(1)


def pytest_collection_finish():
    # What was imported stays: nobody need look for garbage in it, as benchmarks ask for before every measurement.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("ACMIX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
