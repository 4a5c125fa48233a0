from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from acmix.data import LabelledImages
from acmix.data.labels import LabelSets
from acmix.data.loading import Batch
from acmix.tasks.classification.measures import MEASURES, MULTI_LABEL_MEASURES
from acmix.tasks.classification.multi_label import label_outcomes, probabilities_of, tally_labels
from acmix.tasks.classification.settings import Settings
from acmix.tasks.classification.task import Classification, balanced_weights, positive_weights

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


WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0, 1.0, 3.0])


def weighted(changes, logits, targets, mixed=None):
    task = Classification(replace(SETTINGS, class_weights="balanced", **changes), 6, CPU, WEIGHTS)
    task._mixing = None if mixed is None else lambda images, _: (images, mixed)
    names = [str(number) for number in range(len(logits))]
    batch = Batch(images=logits, labels=targets, names=names, unreadable=[], seconds=0.0)
    return task.loss(identity, batch)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_an_image_weighs_what_its_class_does(loss, smoothing):
    changes = {"loss": loss, "label_smoothing": smoothing}
    each = [Classification(replace(SETTINGS, **changes), 6, CPU) for _ in LABELS]
    singles = [
        task.loss(identity, Batch(images=row[None], labels=label[None], names=["a"], unreadable=[], seconds=0.0))
        for task, row, label in zip(each, LOGITS, LABELS, strict=True)
    ]
    expected = sum(WEIGHTS[label] * single for label, single in zip(LABELS, singles, strict=True)) / len(LABELS)
    torch.testing.assert_close(weighted(changes, LOGITS, LABELS), expected)
    # However images are divided into batches.
    parts = [weighted(changes, LOGITS[part], LABELS[part]) for part in (slice(0, 1), slice(1, 3))]
    torch.testing.assert_close((parts[0] + 2 * parts[1]) / 3, expected)
    # Shares that are whole are labels.
    shares = nn.functional.one_hot(LABELS, 6).float()
    torch.testing.assert_close(weighted(changes, LOGITS, LABELS, shares), expected)


def test_a_mixed_image_weighs_the_mean_over_its_shares():
    shares = torch.tensor([[0.25, 0, 0.75, 0, 0, 0]])
    expected = (0.25 * WEIGHTS[0] + 0.75 * WEIGHTS[2]) * nn.functional.cross_entropy(LOGITS[:1], shares)
    torch.testing.assert_close(weighted({}, LOGITS[:1], LABELS[:1], shares), expected)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_balanced_weights_let_every_class_count_the_same(labels):
    images = LabelledImages(
        [str(i) for i in range(len(labels))], [Image.new("RGB", (1, 1))] * len(labels), labels, "abcde"
    )
    weights = balanced_weights(images)
    sums = {label: float(weights[label]) * labels.count(label) for label in range(5)}
    assert all(sums[label] == pytest.approx(len(labels) / 5 if label in labels else 0) for label in sums)


SETS = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]])


def multi_label_task(**changes):
    weights = changes.pop("weights", None)
    return Classification(replace(SETTINGS, **changes), 3, CPU, weights, multi_label=True)


def batch_of(targets):
    return Batch(images=LOGITS[:, :3].clone(), labels=targets, names=["a", "b", "c"], unreadable=[], seconds=0.0)


def test_several_labels_are_learned_each_by_itself():
    expected = nn.functional.binary_cross_entropy_with_logits(LOGITS[:, :3], SETS)
    torch.testing.assert_close(multi_label_task().loss(identity, batch_of(SETS)), expected)


def test_smoothing_of_several_labels_is_over_yes_and_no():
    smooth = torch.where(SETS > 0, 0.9, 0.1)
    expected = nn.functional.binary_cross_entropy_with_logits(LOGITS[:, :3], smooth)
    torch.testing.assert_close(multi_label_task(label_smoothing=0.2).loss(identity, batch_of(SETS)), expected)


def test_several_labels_are_mixed_as_images_are():
    torch.manual_seed(0)
    task = multi_label_task(mixup=1.0)
    images = LOGITS[:, :3, None, None].expand(3, 3, 2, 2).clone()
    batch = Batch(images=images, labels=SETS, names=["a", "b", "c"], unreadable=[], seconds=0.0)
    seen = []

    def network(mixed):
        seen.append(mixed.mean((2, 3)))
        return seen[0]

    loss = task.loss(network, batch)
    before = images.mean((2, 3))
    turned = before.roll(1, 0)
    share = ((seen[0] - turned) / (before - turned)).nanmean()
    assert 0 < share < 1
    targets = share * SETS + (1 - share) * SETS.roll(1, 0)
    torch.testing.assert_close(loss, nn.functional.binary_cross_entropy_with_logits(seen[0], targets))


def test_positive_weights_let_yes_count_as_no():
    images = LabelledImages(
        names=[f"{index}.png" for index in range(4)],
        images=[Image.new("RGB", (4, 4))] * 4,
        labels=LabelSets([(0, 2), (2,), (2,), (1, 0, 2)]),
        classes=("a", "b", "c"),
    )
    weights = positive_weights(images)
    assert weights.tolist() == [1, 3, 1]
    found = multi_label_task(weights=weights).loss(identity, batch_of(SETS))
    expected = nn.functional.binary_cross_entropy_with_logits(LOGITS[:, :3], SETS, pos_weight=weights)
    torch.testing.assert_close(found, expected)


def test_measures_of_several_labels():
    task = multi_label_task()
    for part in (slice(0, 2), slice(2, 3)):
        task.measure(identity, (LOGITS[part, :3], SETS[part]))
    found = {name: float(value) for name, value in task.metrics.compute().items()}
    assert set(found) == {measure.name for measure in MULTI_LABEL_MEASURES}
    expected = tally_labels(label_outcomes(LOGITS[:, :3], probabilities_of(LOGITS[:, :3]), SETS, 0), "abc")
    assert found["val_map"] == pytest.approx(expected.map)
    assert found["val_f1"] == pytest.approx(expected.f1)
    assert found["val_f1_micro"] == pytest.approx(expected.f1_micro)
    assert found["val_loss"] == pytest.approx(
        float(nn.functional.binary_cross_entropy_with_logits(LOGITS[:, :3], SETS))
    )
