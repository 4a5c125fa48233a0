import os

import torch
from PIL import Image

from acmix.data import LabelledImages, image_loader


def process_group(_):
    return torch.tensor(os.getpgid(0))


def test_workers_leave_interrupts_to_the_process_that_reads_them():
    images = LabelledImages("abcd", [Image.new("RGB", (2, 2))] * 4, [0, 1, 0, 1], ["p", "q"], process_group)
    for workers in (0, 2):
        batches = list(image_loader(images, batch_size=3, workers=workers))
        # A terminal's Ctrl-C and a scheduler's SIGTERM go to the group of the process that trains.
        outside = [group != os.getpgid(0) for groups, _ in batches for group in groups.tolist()]
        assert outside == [workers > 0] * 4
        assert [label for _, labels in batches for label in labels.tolist()] == [0, 1, 0, 1]
