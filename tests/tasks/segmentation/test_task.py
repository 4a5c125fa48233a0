"""What masks teach: pixels of a class, however an update is cut, and nothing else."""

import pytest
import torch
from torch import nn

from acmix.tasks.segmentation.settings import Settings
from acmix.tasks.segmentation.task import Batch, Segmentation, dice_loss

SETTINGS = {"model": "semantic_fpn"}


class Given(nn.Module):
    """A network that answers what it is given."""

    def forward(self, images):
        return images


def batch(logits, labels):
    return Batch(images=logits, labels=labels, names=["one"] * len(labels), unreadable=[], seconds=0)


def loss(logits, labels, weights=None, **settings):
    task = Segmentation(Settings(**SETTINGS, **settings), logits.shape[1], torch.device("cpu"), weights)
    return task.loss(Given(), batch(logits, labels))


def some(count=3):
    labels = torch.randint(-1, 3, (count, 4, 5), dtype=torch.int16)
    return torch.randn(count, 3, 4, 5, requires_grad=True), labels


def test_cross_entropy_is_the_mean_over_pixels_of_which_ignored_ones_add_nothing():
    logits, labels = some()
    each = nn.functional.cross_entropy(logits, labels.long().clamp(min=0), reduction="none")
    expected = (each * (labels >= 0)).mean()
    found = loss(logits, labels)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert (logits.grad.abs().sum(1)[labels < 0] == 0).all()


@pytest.mark.parametrize("settings", [{}, {"dice": 0.7}, {"label_smoothing": 0.2}])
def test_an_update_is_the_same_however_it_is_cut(settings):
    logits, labels = some(4)
    parts = [loss(logits[at : at + 2], labels[at : at + 2], **settings) for at in (0, 2)]
    torch.testing.assert_close(loss(logits, labels, **settings), (parts[0] + parts[1]) / 2)


def test_weights_are_of_the_true_class():
    logits, labels = some()
    weights = torch.tensor([0.0, 2.0, 0.0])
    each = nn.functional.cross_entropy(logits, labels.long().clamp(min=0), reduction="none")
    torch.testing.assert_close(loss(logits, labels, weights), (2 * each * (labels == 1)).mean())


def test_dice_is_zero_for_certain_answers_and_one_for_wrong_ones():
    labels = torch.tensor([[[0, 1], [1, -1]]])
    sure = 100 * nn.functional.one_hot(labels.clamp(min=0), 3).movedim(-1, 1).float()
    assert dice_loss(sure, labels) == pytest.approx(0, abs=1e-6)
    assert dice_loss(sure.roll(1, 1), labels) == pytest.approx(1)


def test_a_mask_that_says_nothing_has_no_loss():
    labels = torch.full((1, 4, 5), -1, dtype=torch.int16)
    found = loss(torch.randn(1, 3, 4, 5, requires_grad=True), labels, dice=1.0)
    assert found == 0


def test_a_validation_measures_at_the_size_of_the_mask():
    task = Segmentation(Settings(**SETTINGS), 2, torch.device("cpu"))
    logits = torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]])
    labels = torch.tensor([[0, 0, 1, 1]] * 2, dtype=torch.int16)
    task.measure(Given(), [(logits, labels)])
    found = task.metrics.compute()
    assert found["val_mean_iou"] == found["val_pixel_accuracy"] == 1
    assert 0 < found["val_loss"] < 0.1
