from dataclasses import replace

import pytest
import torch
from torch import nn

from acmix.data.loading import Batch
from acmix.tasks.classification.measures import MEASURES
from acmix.tasks.classification.settings import Settings
from acmix.tasks.classification.task import Classification

SETTINGS = Settings(model="", label_smoothing=0.0)
CPU = torch.device("cpu")
LOGITS = torch.tensor([[3.0, 1, 0, 0, 0, 0], [0, 3, 1, 0, 0, 0], [5, 4, 3, 2, 1, 0]])
LABELS = torch.tensor([0, 2, 5])


def identity(images):
    return images


@pytest.mark.parametrize("classes", [3, 6])
def test_measures_are_those_of_all_images(classes):
    task = Classification(SETTINGS, classes, CPU)
    logits, labels = LOGITS[:, :classes], LABELS.clamp(max=classes - 1)
    for part in (slice(0, 2), slice(2, 3)):
        task.measure(identity, (logits[part], labels[part]))
    found = {name: float(value) for name, value in task.metrics.compute().items()}
    assert found["val_loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item())
    assert found["val_top1"] == pytest.approx(1 / 3)
    assert found.get("val_top5") == (None if classes == 3 else pytest.approx(2 / 3))
    assert {each.name for each in MEASURES if not each.optional} <= found.keys() <= {each.name for each in MEASURES}


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_losses_are_means_over_images(loss):
    task = Classification(replace(SETTINGS, loss=loss), 6, CPU)
    batch = Batch(images=LOGITS, labels=LABELS, names=["a", "b", "c"], unreadable=[], seconds=0.0)
    expected = nn.functional.cross_entropy(LOGITS, LABELS)
    if loss == "binary_cross_entropy":
        expected = nn.functional.binary_cross_entropy_with_logits(LOGITS, nn.functional.one_hot(LABELS).float())
    torch.testing.assert_close(task.loss(identity, batch), expected)


def test_images_are_mixed_in_training_alone():
    task = Classification(replace(SETTINGS, mixup=1.0), 6, CPU)
    seen = []

    def network(images):
        seen.append(images)
        return images.flatten(1)[:, :6]

    images = torch.rand(3, 3, 2, 2)
    task.loss(network, Batch(images=images, labels=LABELS, names=["a", "b", "c"], unreadable=[], seconds=0.0))
    task.measure(network, (images, LABELS))
    assert not torch.equal(seen[0], images)
    assert torch.equal(seen[1], images)
