"""Multiply-adds of detectors: all of their parts, as often as they are called."""

import pytest
import torch

from acmix.accounting import account
from acmix.models.dense import EveryPart, PixelScores
from acmix.models.detectors import DETECTORS, create_detector
from tests.models.test_detectors import SMALL


@pytest.mark.parametrize("name", DETECTORS)
def test_every_parameter_is_counted_but_norms(name):
    network = create_detector(name, 3, SMALL).eval()
    found = account(EveryPart(network), (3, 64, 64)).network
    assert found.total.parameters == sum(each.numel() for each in network.parameters())
    assert found.attention.multiply_adds > 0
    assert set(found.uncounted) <= {"BatchNorm2d", "BatchNormAct2d", "GroupNorm"}


def test_what_is_counted_grows_with_proposals_and_masks():
    few, many = (create_detector("mask_rcnn", 3, SMALL).eval() for _ in range(2))
    many.detector.rpn._post_nms_top_n["testing"] *= 2
    many.detector.roi_heads.detections_per_img *= 2
    counts = [account(EveryPart(each), (3, 64, 64)).network.other.multiply_adds for each in (few, many)]
    heads = many.detector.roi_heads
    box, width = heads.box_head, SMALL.pyramid_channels
    proposal = sum(each.weight.numel() for each in (box.fc6, box.fc7, *heads.box_predictor.children()))
    convolutions = [each for each in heads.mask_head.modules() if isinstance(each, torch.nn.Conv2d)]
    mask = sum(each.weight.numel() * 14 * 14 for each in convolutions)
    mask += heads.mask_predictor.conv5_mask.weight.numel() * 14 * 14 + width * 4 * 28 * 28
    assert counts[1] - counts[0] == 1000 * proposal + SMALL.most_detections * mask


def test_pixels_speak_for_the_class_that_they_are_of():
    logits = torch.tensor([[[[3.0, 1.0, 0.0]], [[0.0, 2.0, 4.0]], [[-1.0, -2.0, -3.0]]]])
    found = PixelScores(torch.nn.Identity())(logits)
    assert found.tolist() == [[3.0, 3.0, -2.0]]
