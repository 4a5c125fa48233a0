import base64

import numpy as np
import pytest
from PIL import Image

from acmix import InputError
from acmix.data import Digits, LabelledImages, TrainedImages, open_dataset
from acmix.data import trained as module
from acmix.data.trained import examine, refuse_unreadable


def test_images_are_read_once_each_process_its_share():
    images = Digits().subset(range(301))
    every = examine(images)
    assert every.faults == []
    assert len(np.unique(every.contents)) == 301
    shares = [examine(images, range(rank, 301, 3), decode=False).contents for rank in range(3)]
    assert [np.count_nonzero(share) for share in shares] == [101, 100, 100]
    assert (np.bitwise_or.reduce(shares) == every.contents).all()


def test_unreadable_images_are_faults_and_have_no_digest(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("L", (3, 3), index).save(tmp_path / name / f"{index}.png")
    images = open_dataset(str(tmp_path)).train
    (tmp_path / images.name(0)).write_bytes(b"no image")
    (tmp_path / images.name(1)).unlink()
    found = examine(images)
    assert [fault.partition(": ")[0] for fault in found.faults] == [str(tmp_path / images.name(i)) for i in (0, 1)]
    assert found.contents[:2].tolist() == [0, 0]
    assert np.count_nonzero(examine(images, decode=False).contents) == len(images) - 1
    with pytest.raises(InputError, match=f"^2 of 8 images cannot be read: {tmp_path / images.name(0)}: not a readable"):
        refuse_unreadable(found.faults, 8)


def test_the_first_few_faults_are_named():
    refuse_unreadable([], 5)
    with pytest.raises(InputError, match=r"^5 of 5 images cannot be read: a; b; c; \.\.\.; repair or remove them"):
        refuse_unreadable(list("abcde"), 5)


def test_images_are_recognised_by_file_and_by_name():
    images = Digits().subset(range(6))
    known = TrainedImages.of(images.subset([0, 1, 2]), examine(images.subset([0, 1, 2])).contents)
    others = LabelledImages(
        ["new", images.names[0], images.names[1], "other"], [images.images[i] for i in (0, 1, 5, 5)], [0] * 4, ["d"]
    )
    known = TrainedImages.from_record({"trained_images": known.to_record()})
    same, named = known.recognise(others, examine(others).contents)
    assert same.tolist() == [True, True, False, False]
    assert named.tolist() == [False, True, True, False]


def test_names_may_be_of_any_bytes():
    images = LabelledImages(["a.tar/\udce9.png"], Digits().subset([0]).images, [0], ["d"])
    known = TrainedImages.of(images, examine(images).contents)
    assert [mask.tolist() for mask in known.recognise(images, examine(images).contents)] == [[True], [True]]


def test_what_could_not_be_read_is_never_recognised():
    images = Digits().subset(range(3))
    known = TrainedImages.of(images, np.zeros(3, np.uint64))
    assert len(known.contents) == 0
    assert not known.recognise(images, np.zeros(3, np.uint64))[0].any()


def test_too_many_images_are_not_remembered(monkeypatch):
    monkeypatch.setattr(module, "_MOST_IMAGES", 2)
    images = Digits().subset(range(3))
    known = TrainedImages.of(images, examine(images).contents)
    assert len(known.names) == len(known.contents) == 0


@pytest.mark.parametrize(
    "record", [[], {"names": 3}, {"names": "?"}, {"contents": base64.b64encode(b"seven b").decode()}, "text"]
)
def test_damaged_records_are_refused(record):
    with pytest.raises(InputError, match="record of the images that it learned from is damaged"):
        TrainedImages.from_record({"trained_images": record})


def test_checkpoints_of_old_have_no_record():
    assert len(TrainedImages.from_record({"data": {}}).contents) == 0
