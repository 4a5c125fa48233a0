"""Scores of pixels against those counted by hand."""

import math

import pytest
import torch

from acmix.tasks.segmentation.scores import PixelScores, scores


def test_scores_by_hand():
    """Of class 0 two of three pixels are found, of class 1 one of one; 2 is predicted alone, 3 is nowhere."""
    found = scores(torch.tensor([[2, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert found.iou[:3].tolist() == pytest.approx([2 / 3, 1, 0])
    assert math.isnan(found.iou[3])
    assert found.accuracy[:2].tolist() == pytest.approx([2 / 3, 1])
    assert found.accuracy[2:].isnan().all()
    assert found.mean_iou == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.mean_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert found.pixel_accuracy == pytest.approx(3 / 4)


def test_pixels_without_a_class_do_not_count_and_images_add_up():
    metric = PixelScores(3)
    truth, found = torch.tensor([[[0, 0, -1], [1, 1, -1]]]), torch.tensor([[[0, 1, 2], [1, 1, 0]]])
    metric.update(found, truth)
    metric.update(torch.tensor([[[2]]]), torch.tensor([[[2]]]))
    row = metric.compute()
    assert row["val_mean_iou"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert row["val_pixel_accuracy"] == pytest.approx(4 / 5)
    assert row["val_mean_accuracy"] == pytest.approx((1 / 2 + 1 + 1) / 3)


def test_scores_are_those_of_torchmetrics():
    from torchmetrics.functional.classification import multiclass_jaccard_index

    truth, found = torch.randint(0, 4, (2, 500))
    metric = PixelScores(5)
    metric.update(found, truth)
    expected = multiclass_jaccard_index(found, truth, num_classes=5, average="macro")
    assert metric.compute()["val_mean_iou"] == pytest.approx(float(expected))
