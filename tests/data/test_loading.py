import signal

import pytest
import torch
from PIL import Image

from acmix.data import LabelledImages, image_loader


def ignores_interrupts(_):
    return torch.tensor(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)


@pytest.fixture
def _interruptible():
    # A test run that a shell put into the background ignores the signal from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_workers_leave_interrupts_to_the_process_that_reads_them():
    images = LabelledImages("abcd", [Image.new("RGB", (2, 2))] * 4, [0, 1, 0, 1], ["p", "q"], ignores_interrupts)
    for workers, ignored in ((0, False), (2, True)):
        batches = list(image_loader(images, batch_size=3, workers=workers))
        assert [flag for flags, _ in batches for flag in flags.tolist()] == [ignored] * 4
        assert [label for _, labels in batches for label in labels.tolist()] == [0, 1, 0, 1]
