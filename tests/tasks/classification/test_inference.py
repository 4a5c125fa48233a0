from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from acmix import InputError
from acmix.checkpoints.classifier import Classifier
from acmix.data import LabelledImages, sources
from acmix.data.labels import LabelSets
from acmix.tasks.classification.inference import evaluate, predict

CLASSES = ("a", "b", "c", "d", "e", "f")
GREYS = (0, 50, 100, 150, 200, 250)


class Brightness(nn.Module):
    """Logits that fall with the distance of the mean brightness from each class's grey."""

    def forward(self, x):
        return -(x.mean((1, 2, 3))[:, None] * 255 - torch.tensor(GREYS, device=x.device)).abs()


class Lost(nn.Module):
    """Weights that have overflowed."""

    def forward(self, x):
        return x * torch.nan


@pytest.fixture
def classifier():
    preprocessing = {"input_size": (3, 8, 8), "interpolation": "bilinear", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    preprocessing |= {"crop_pct": 1.0, "crop_mode": "center"}
    return Classifier(model=Brightness(), model_name="none", classes=CLASSES, preprocessing=preprocessing)


def grey(value):
    return Image.new("RGB", (10, 10), (value,) * 3)


def test_evaluation_counts(classifier):
    greys, labels = [0, 50, 50, 250, 250], [0, 1, 0, 0, 5]
    images = LabelledImages(list("vwxyz"), [grey(value) for value in greys], labels, CLASSES)
    result = evaluate(classifier, images, batch_size=2)
    assert result.images == 5
    assert result.top1 == pytest.approx(3 / 5)
    assert result.top5 == pytest.approx(4 / 5)  # of 250 taken for class a, a is the last of six
    assert result.confusion_matrix[0] == [1, 1, 0, 0, 0, 1]
    first, second, third = result.classes[:3]
    assert (first.images, first.recall, first.precision) == (3, pytest.approx(1 / 3), 1)
    assert first.f1 == pytest.approx(0.5)
    assert second.precision == pytest.approx(0.5)
    assert (third.images, third.recall, third.precision, third.f1) == (0, 0, 0, 0)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": -1}])
def test_evaluation_checks_its_arguments(classifier, options):
    images = LabelledImages(["x"], [grey(0)], [0], CLASSES)
    with pytest.raises(InputError, match="at least"):
        evaluate(classifier, images, **options)


# The first class would be the most probable one.
@pytest.mark.parametrize("multi_label", [False, True])
def test_answers_that_are_not_finite_are_no_classes(classifier, tmp_path, multi_label):
    grey(100).save(tmp_path / "0.png")
    lost = replace(classifier, model=nn.Sequential(Brightness(), Lost()), multi_label=multi_label)
    labels = LabelSets([(0,), (1,)]) if multi_label else [0, 1]
    images = LabelledImages(["x", "y"], [grey(0), grey(1)], labels, CLASSES)
    with pytest.raises(InputError, match="^x: the network's answer is not finite"):
        evaluate(lost, images)
    with pytest.raises(InputError, match=r"0\.png: the network's answer is not finite"):
        list(predict(lost, [tmp_path / "0.png"], []))


def test_prediction_goes_on_after_unreadable_files(classifier, tmp_path):
    for index, value in enumerate((100, 200)):
        grey(value).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = ["absent.png", "0.png", "broken.png", "1.png", "0.png"]
    faults = []
    found = list(predict(classifier, [tmp_path / name for name in names], faults, top=2, batch_size=2))
    assert [prediction.path.name for prediction in found] == ["0.png", "1.png", "0.png"]
    assert [prediction.scores[0][0] for prediction in found] == ["c", "e", "c"]
    assert all(len(prediction.scores) == 2 for prediction in found)
    assert [name in line for name, line in zip(("absent.png", "broken.png"), faults, strict=True)] == [True] * 2


def test_predictions_come_while_few_images_are_in_memory(classifier, monkeypatch):
    read = []

    def read_image(path):
        read.append(path)
        return grey(100)

    monkeypatch.setattr(sources, "read_image", read_image)
    next(predict(classifier, ["a.png"] * 100_000, []))
    assert len(read) < 1000


def test_probabilities_add_up_and_top_is_capped(classifier, tmp_path):
    grey(100).save(tmp_path / "image.png")
    (found,) = predict(classifier, [tmp_path / "image.png"], [], top=99)
    assert len(found.scores) == len(CLASSES)
    values = [value for _, value in found.scores]
    assert sum(values) == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    for name in ("top", "batch_size"):
        with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
            predict(classifier, [], [], **{name: 0})


def test_batches_without_memory_are_refused(classifier, monkeypatch, tmp_path):
    def forward(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(classifier.model, "forward", forward)
    images = LabelledImages(["x"], [grey(0)], [0], CLASSES)
    grey(100).save(tmp_path / "image.png")
    for work in (
        lambda: evaluate(classifier, images),
        lambda: list(predict(classifier, [tmp_path / "image.png"], [])),
        lambda: classifier.predict(tmp_path / "image.png"),
    ):
        with pytest.raises(InputError, match="batch_size is too large: cpu has no memory for 1 image"):
            work()
