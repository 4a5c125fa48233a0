"""The life of a run on images with any number of labels, from data to report."""

import csv
import json

import pytest
import torch
from PIL import Image

import acmix
from acmix import InputError
from acmix.checkpoints import sealed
from acmix.checkpoints.hub import save_pretrained
from acmix.checkpoints.opening import load
from acmix.pages.comparison import write_comparison
from acmix.pages.report import write_report
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.inference import measure, predict
from acmix.tasks.classification.settings import Settings
from acmix.tasks.comparison import compare_runs
from acmix.tasks.record import read_run
from tests.commands import call
from tests.tables import multi_label
from tests.tasks.loop.test_distribution import together

SETTINGS = Settings(model="acmix_resnet14_small", epochs=2, batch_size=16, image_size=32, learning_rate=0.01)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(multi_label(tmp_path_factory.mktemp("labels") / "data", count=64))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    return ROOM.fit(data, SETTINGS, tmp_path_factory.mktemp("runs") / "run", workers=0)


def test_the_best_epoch_is_that_of_the_best_map(finished):
    with (finished.output / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"val_map", "val_f1", "val_f1_micro", "val_loss"} <= set(rows[0])
    assert "val_top1" not in rows[0]
    assert (finished.measure, finished.best) == ("mAP", pytest.approx(max(float(row["val_map"]) for row in rows)))
    summary = json.loads((finished.output / "summary.json").read_text())
    assert summary["validation"]["map"] == finished.best
    assert [score["name"] for score in summary["validation"]["classes"]] == ["blue", "green", "red"]
    config = json.loads((finished.output / "config.json").read_text())
    assert (config["multi_label"], config["settings"]["loss"]) == (True, "binary_cross_entropy")


def test_the_checkpoint_says_what_it_is(finished, data, tmp_path):
    content = sealed.deserialize((finished.output / "best.safetensors").read_bytes())
    metadata = json.loads(content.metadata["acmix"])
    assert (metadata["format_version"], metadata["multi_label"]) == (3, True)
    classifier = load(finished.output, device="cpu")
    folder = save_pretrained(classifier, tmp_path / "hub")
    images = [f"{data}/{index}.png" for index in (0, 7)]
    labels, probabilities = classifier.predict(images)
    again = acmix.load(folder, device="cpu")
    assert again.multi_label
    assert again.predict(images)[0] == labels
    expected = [
        tuple(name for name, value in zip(classifier.classes, row, strict=True) if value > 0.5) for row in probabilities
    ]
    assert labels == expected
    assert classifier.predict(images, threshold=0)[0] == [("blue", "green", "red")] * 2
    assert classifier.predict(images, threshold=1)[0] == [(), ()]


def test_it_is_measured_on_the_images_that_training_held_out(finished, data):
    found = measure(load(finished.output, device="cpu"), data)
    assert found.evaluation.map == pytest.approx(finished.best)
    assert found.record["map"] == found.evaluation.map
    assert {"average_precision", "precision", "recall", "f1"} <= set(found.record["classes"][0])


def test_class_folders_have_no_clear_meaning(finished, tmp_path):
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "a.png")
    with pytest.raises(InputError, match="gives each image one label, and the checkpoint any number"):
        measure(load(finished.output, device="cpu"), str(tmp_path))


def test_predictions_are_printed_drawn_and_written(finished, data, capsys, tmp_path):
    images = [f"{data}/{index}.png" for index in (3, 7)]
    for options in ([], ["--threshold", "0.99"]):
        code, out, err = call(capsys, "predict", finished.output, *images, "--json", *options)
        assert (code, err) == (0, "")
        rows = json.loads(out)
        for row in rows:
            least = 0.99 if options else 0.5
            assert row["labels"] == [each["name"] for each in row["classes"] if each["probability"] > least]
    code, _, _ = call(capsys, "predict", finished.output, *images, "--output", tmp_path / "found.csv")
    with (tmp_path / "found.csv").open() as file:
        table = list(csv.DictReader(file))
    assert code == 0
    assert list(table[0])[:4] == ["path", "labels", "label", "probability"]
    assert call(capsys, "predict", finished.output, *images, "--output", tmp_path / "drawn")[0] == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["3.png", "7.png"]
    code, _, err = call(capsys, "predict", finished.output, *images, "--threshold", "1.5")
    assert (code, err) == (2, "acmix predict: error: --threshold must be 0 to 1, got 1.5\n")


def test_pages_tell_of_labels(finished, tmp_path):
    page = write_report(finished.output, tmp_path / "report.html", outcomes=finished.outcomes).read_text()
    assert "per class, predicted above 0.5" in page.lower()
    assert "Confusion" not in page
    hasty = write_report(finished.output, tmp_path / "hasty.html", pictures=False).read_text()
    assert "mAP" in hasty
    run = read_run(finished.output)
    comparison = compare_runs([run, run])
    assert comparison.runs[0].measure == "mAP"
    assert "Validation mAP" in write_comparison([run, run], comparison, tmp_path / "compare.html").read_text()


def test_a_run_goes_on(finished, data, tmp_path):
    longer = ROOM.fit(
        data, Settings(**{**vars(SETTINGS), "epochs": 3}), tmp_path / "longer", workers=0, extend=finished.output
    )
    assert longer.epochs == 3
    assert longer.measure == "mAP"


def test_two_processes_are_one(data, tmp_path, start):
    own = {"epochs": 1, "batch_size": 8, "precision": "float32"}
    settings = Settings(**{**vars(SETTINGS), **own})
    assert together(start, 2, lambda: ROOM.fit(data, settings, tmp_path / "two", workers=0)) == [0, 0]
    found = measure(load(tmp_path / "two", device="cpu"), data).evaluation
    with (tmp_path / "two" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_map"]) == pytest.approx(found.map, abs=1e-5)
    assert float(row["val_f1"]) == pytest.approx(found.f1, abs=1e-5)


def test_settings_of_one_label_are_refused(data, tmp_path):
    with pytest.raises(InputError, match="loss cross_entropy is of images with one label each"):
        ROOM.fit(data, Settings(**{**vars(SETTINGS), "loss": "cross_entropy"}), tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


def test_a_threshold_is_of_several_labels(finished):
    classifier = load(finished.output, device="cpu")
    with pytest.raises(InputError, match="threshold must be 0 to 1, got -1"):
        predict(classifier, [], [], threshold=-1)
    one = type(classifier)(**{**vars(classifier), "multi_label": False})
    with pytest.raises(InputError, match="threshold is of classifiers that give any number of labels"):
        one.predict(torch.zeros(1, 3, 32, 32), threshold=0.5)
