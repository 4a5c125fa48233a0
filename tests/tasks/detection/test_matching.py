import numpy as np
import pytest

from acmix.data.annotated import open_annotated
from acmix.tasks.detection.figures import Found
from acmix.tasks.detection.inference import Outcome
from acmix.tasks.detection.matching import confusion, match
from tests.drawn_shapes import draw, write_coco


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return open_annotated(str(write_coco(tmp_path_factory.mktemp("data"), draw(12, side=64)))).train


def truth(images, index, score=0.9):
    """Detections that are the objects of an image."""
    here = images.objects.of(index)
    boxes, labels = images.objects.boxes[here], images.objects.labels[here]
    count = len(labels)
    return np.concatenate((np.full((count, 1), index), labels[:, None], np.full((count, 1), score), boxes), 1)


def matched(images, index, rows, score=0.5):
    return match(images, Outcome(index=index, found=Found(np.array(rows, float).reshape(-1, 7), None)), score=score)


def test_objects_that_are_found_are_no_faults(images):
    every = [matched(images, index, truth(images, index)) for index in range(len(images))]
    for each in every:
        assert len(each.missed) == each.confused.sum() == each.in_vain.sum() == 0
    counts = confusion(images, every)
    assert np.array_equal(counts[:3, :3], np.diag(np.bincount(images.objects.labels, minlength=3)))
    assert counts[3].sum() == counts[:, 3].sum() == 0


def test_what_is_not_sure_enough_does_not_count(images):
    found = matched(images, 0, truth(images, 0, score=0.4))
    assert len(found.missed) == images.objects.counts[0]
    assert len(found.rows) == 0


def test_every_fault_is_told_apart(images):
    index = int(images.objects.counts.argmax())
    rows = truth(images, index)
    count = len(rows)
    assert count > 2
    # The first is missed, the second has another class, something is found twice and something where nothing is.
    rows[1, 1] = (rows[1, 1] + 1) % 3
    twice = rows[2] + [0, 0, -0.1, 0, 0, 0, 0]
    nothing = [index, 0, 0.95, 200, 200, 210, 210]
    found = matched(images, index, [*rows[1:], twice, nothing])
    here = images.objects.of(index)
    assert found.missed.tolist() == [here.start]
    assert found.confused.sum() == 1
    assert found.in_vain.sum() == 2
    assert found.places.tolist()[0] == count
    counts = confusion(images, [found])
    label = images.objects.labels[here]
    assert counts[label[0], 3] == 1
    assert counts[label[1], (label[1] + 1) % 3] == 1
    assert counts[3].sum() == 2
    assert counts.sum() == count + 2


def test_a_detection_stands_for_the_object_of_its_class(images):
    index = int(images.objects.counts.argmax())
    rows = truth(images, index)
    # Of two that cover the same, the surer one has the wrong class.
    wrong = rows[0] + [0, 0, 0.05, 0, 0, 0, 0]
    wrong[1] = (wrong[1] + 1) % 3
    found = matched(images, index, [wrong, *rows])
    assert found.confused.sum() == 1
    assert found.in_vain.sum() == 1
    assert len(found.missed) == 0


def test_what_lies_in_a_crowd_is_left_aside(images):
    crowd = images.subset(range(len(images)))
    crowd.objects.crowd[:] = True
    found = matched(crowd, 0, truth(crowd, 0))
    assert len(found.rows) == len(found.missed) == 0
    found = matched(crowd, 0, [[0, 0, 0.9, 200, 200, 210, 210]])
    assert found.in_vain.sum() == 1


def test_images_without_objects_or_detections_have_no_faults(images):
    nothing = images.subset([0])
    objects = nothing.objects
    assert len(matched(nothing, 0, []).missed) == objects.counts[0]
    assert confusion(nothing, [matched(nothing, 0, [])])[:, 3].sum() == objects.counts[0]
