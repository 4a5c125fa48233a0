"""A folder of images and processes that a test may kill."""

import multiprocessing
import os

import pytest
import torch

from acmix.data import open_dataset

# A process that only uses the CPU may be forked, which spares it the start.
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Ten digits of each of six classes, as files."""
    root = tmp_path_factory.mktemp("digits")
    images = open_dataset("digits").train
    counts = [0] * 6
    for name, image, label in zip(images.names, images.images, images.labels, strict=True):
        if label < 6 and counts[label] < 10:
            counts[label] += 1
            path = root / name
            path.parent.mkdir(exist_ok=True)
            image.save(path)
    return str(root)


def _run(function, arguments, environment):
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)


@pytest.fixture
def start():
    """Start a function in a process of its own; the test's end kills it."""
    processes = []

    def begin(function, *arguments, environment=None):
        process = FORK.Process(target=_run, args=(function, arguments, environment or {}))
        process.start()
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.join()
