"""Detectors and segmenters as explanations look at them: the backbone's layers, and what the network itself says."""

import numpy as np
import pytest
import torch
from PIL import Image

from acmix import InputError
from acmix.explain import compare_backends, operators, path_shares
from acmix.explain.images import explain_image
from acmix.explain.views import view_of
from tests.checkpoints.test_cards import a_detector, a_segmenter

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
KINDS = ("retinanet", "fcos", "faster_rcnn", "mask_rcnn")


@pytest.fixture(scope="module", params=(*KINDS, "semantic_fpn"))
def trained(request):
    found = (a_segmenter if request.param == "semantic_fpn" else a_detector)(request.param)
    for name, parameter in found.model.named_parameters():
        # Fresh networks silence the ends of their branches.
        if name.endswith("bn3.weight"):
            parameter.data.fill_(1)
    return found


def test_every_layer_of_the_backbone_is_explained(trained):
    explanation = explain_image(trained, PICTURE, pixel=(3, 20))
    layers = [f"layer{number}.0.conv2" for number in (1, 2, 3, 4)]
    assert [part.layer for part in explanation.attention] == layers[: len(explanation.attention)]
    height, width = explanation.tensor.shape[-2:]
    assert explanation.picture.size == (width, height)
    for part, evidence in zip(explanation.attention, explanation.evidence, strict=True):
        assert torch.allclose(part.weights.sum((-2, -1)), torch.ones(1, part.weights.shape[1]), atol=1e-5)
        assert evidence.isfinite().all()
        assert evidence.abs().max() > 0
    view = view_of(trained)
    assert len(path_shares(view.network, [explanation.tensor[None]])) == len(explanation.attention)
    values = [value for _, value in explanation.scores]
    assert values == sorted(values, reverse=True)
    assert {name for name, _ in explanation.scores} == set(trained.classes)
    with pytest.raises(InputError, match=f"pixel must lie in the {height} x {width} pixels"):
        explain_image(trained, PICTURE, pixel=(height, 0))
    with pytest.raises(InputError, match=r"layer must be one of layer1.0.conv2"):
        explain_image(trained, PICTURE, layers=["layer9"])


@pytest.mark.parametrize("name", KINDS)
def test_the_best_class_is_that_of_the_surest_object(name):
    detector = a_detector(name)
    scores = dict(explain_image(detector, PICTURE).scores)
    (found,) = detector.predict(PICTURE, score=0.0)
    for label in detector.classes:
        best = max((score for score, own in zip(found.scores.tolist(), found.labels, strict=True) if own == label))
        # Of those with proposals boxes may lie beside the image, where it is continued.
        assert scores[label] == pytest.approx(best, abs=1e-5 if name in ("retinanet", "fcos") else 0.01)


@pytest.mark.parametrize("size", [(400, 2), (1, 200)])
def test_a_line_is_explained_as_it_is_searched(size):
    """Of whose short side resizing would leave nothing."""
    detector = a_detector("retinanet")
    explanation = explain_image(detector, Image.new("RGB", size))
    assert min(explanation.tensor.shape) > 0


def test_shares_are_those_of_the_picture():
    segmenter = a_segmenter("semantic_fpn")
    scores = dict(explain_image(segmenter, PICTURE).scores)
    assert sum(scores.values()) == pytest.approx(1)
    view = view_of(segmenter)
    labels = segmenter.model(view.tensor(PICTURE)[None]).argmax(1)
    for label, name in enumerate(segmenter.classes):
        assert scores[name] == pytest.approx(float((labels == label).float().mean()))


def test_backends_are_compared_on_what_the_network_says(trained):
    view = view_of(trained)
    tensor = view.tensor(PICTURE)
    answers = {answer.backend: answer for answer in compare_backends(view.scorer, tensor[None], seconds=0.01)}
    assert answers["reference"].error < 1e-4
    assert answers["portable"].error < 1e-4
    assert operators(view.network).keys()
    judged = view.judged(answers["portable"].logits[0].float())
    assert judged is None or judged.shape == (len(trained.classes),)
