import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from acmix import InputError
from acmix.tasks.classification.multi_label import (
    MeanAveragePrecision,
    label_outcomes,
    label_prediction,
    probabilities_of,
    tally_labels,
)

CLASSES = ("ant", "bee", "cow")
LOGITS = torch.tensor([[3.0, -1, -2], [-1, 2, -3], [1, 1, -1], [-2, -2, -2]])
TARGETS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])


def outcomes(logits=LOGITS, targets=TARGETS):
    return list(label_outcomes(logits, probabilities_of(logits), targets, 0))


def test_outcomes():
    found = outcomes()
    assert [outcome.labels for outcome in found] == [(0,), (0, 1), (1,), ()]
    assert [outcome.predictions for outcome in found] == [(0,), (1,), (0, 1), ()]
    assert [outcome.right for outcome in found] == [True, False, False, True]
    expected = torch.nn.functional.binary_cross_entropy(LOGITS[1].sigmoid(), TARGETS[1])
    assert found[1].loss == pytest.approx(float(expected))


def test_scores_by_class_and_over_all():
    found = tally_labels(outcomes(), CLASSES)
    ant, bee, cow = found.classes
    assert (ant.images, bee.images, cow.images) == (2, 2, 0)
    assert (ant.precision, ant.recall, ant.f1) == (0.5, 0.5, 0.5)
    assert (bee.average_precision, bee.recall, bee.f1) == (1, 1, 1)
    assert (cow.average_precision, cow.recall, cow.f1) == (None, 0, 0)
    assert found.map == pytest.approx((ant.average_precision + 1) / 2)
    assert found.f1 == pytest.approx(0.5)
    assert found.f1_micro == pytest.approx(0.75)
    assert "mAP" in found.words
    assert "of 2 classes, as no image has cow" in found.words
    assert found.tables[0].rows[2] == ("cow", "0", "-", "0.00%", "0.00%", "0.00%")


@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(2, 6))
def test_measures_are_those_of_scikit_learn(seed, images, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator) * 9
    targets = torch.randint(2, (images, classes), generator=generator).float()
    targets[0] = 1
    found = tally_labels(outcomes(logits, targets), [str(place) for place in range(classes)])
    known, guessed = targets.int().numpy(), (logits > 0).int().numpy()
    assert found.map == pytest.approx(average_precision_score(known, probabilities_of(logits).numpy(), average="macro"))
    assert found.f1 == pytest.approx(f1_score(known, guessed, average="macro", zero_division=0))
    assert found.f1_micro == pytest.approx(f1_score(known, guessed, average="micro", zero_division=0))


def test_large_logits_keep_their_order():
    logits = torch.tensor([[30.0, 0], [29.0, 0], [28.0, 0]])
    targets = torch.tensor([[0.0, 1], [1, 1], [0, 1]])
    assert tally_labels(outcomes(logits, targets), ("a", "b")).classes[0].average_precision == 0.5


def test_images_without_any_label_cannot_be_measured():
    with pytest.raises(InputError, match="none of the 4 images has a label"):
        tally_labels(outcomes(targets=torch.zeros(4, 3)), CLASSES)


def test_mean_average_precision_is_silent_of_missing_classes():
    metric = MeanAveragePrecision(3)
    metric.update(probabilities_of(LOGITS), TARGETS.int())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(metric.compute()) == pytest.approx(tally_labels(outcomes(), CLASSES).map)


def test_predictions_are_labels_above_the_threshold():
    row = torch.tensor([0.6, 0.1, 0.7])
    found = label_prediction(Path("a.png"), row, CLASSES, top=2, threshold=0.5)
    assert [name for name, _ in found.labels] == ["cow", "ant"]
    assert found.words == "cow 70.0%  ant 60.0%"
    assert found.record["labels"] == ["cow", "ant"]
    assert found.rows[0][0] == "cow;ant"
    assert len(found.scores) == 2
    none = label_prediction(Path("a.png"), row, CLASSES, top=5, threshold=0.9)
    assert none.words == "no label; the most probable: cow 70.0%"
    assert (none.labels, none.rows[0][0], len(none.scores)) == ([], "", 3)
