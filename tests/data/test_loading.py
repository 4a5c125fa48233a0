import os

import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.data import LabelledImages, image_loader, training_loader
from acmix.data.loading import replacements
from acmix.data.sampling import EpochSampler


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


@pytest.mark.parametrize("count", [*range(1, 200), 1024, 1999, 2310])
def test_every_image_is_tried_once_for_an_unreadable_one(count):
    for index in {0, count // 2, count - 1}:
        tried = list(replacements(index, count))
        assert tried[0] == index
        assert sorted(tried) == list(range(count))
        assert tried == list(replacements(index, count))


def test_images_far_away_are_tried_where_neighbours_fail():
    count = 100_000
    tried = [next(images) for images in [replacements(500, count)] for _ in range(30)]
    # Half of the data lost in one piece leaves as many to read as not, give or take.
    assert 8 < sum(at < count // 2 for at in tried[3:]) < 19


@pytest.mark.parametrize("count", range(2, 13))
def test_one_readable_image_among_unreadable_ones_is_found(tmp_path, count):
    for whole in range(count):
        files = [tmp_path / f"{number}.png" for number in range(count)]
        for file in files:
            file.write_bytes(b"no image")
        Image.new("RGB", (2, 2)).save(files[whole])
        images = LabelledImages([file.name for file in files], files, [0] * count, ["p"])
        sampler = EpochSampler(count, batch_size=count)
        (batch,) = training_loader(images, sampler, lambda image: torch.tensor(image.size), seed=0)
        assert batch.names == [f"{whole}.png"] * count
    files[whole].write_bytes(b"no image")
    with pytest.raises(InputError, match=rf"\d+\.png and {count - 1} in its place cannot be read: "):
        list(training_loader(images, sampler, lambda image: torch.tensor(image.size), seed=0))
