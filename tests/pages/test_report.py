"""Pages of runs: complete, self-contained, true to what they show, and honest about what they lack."""

import csv
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import from_numpy

from acmix import InputError, explain
from acmix.checkpoints.stored import load_trained
from acmix.data import data_record, open_dataset, open_evaluation
from acmix.errors import PreemptedError
from acmix.pages import html
from acmix.pages.comparison import write_comparison
from acmix.pages.report import write_report
from acmix.shell import command
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.inference import classify, evaluate, tally
from acmix.tasks.classification.settings import Settings
from acmix.tasks.comparison import compare_runs
from acmix.tasks.loop.progress import PARTS, Reporting
from acmix.tasks.record import read_run
from tests.pages.markup import Page

SETTINGS = Settings(model="acmix_resnet14_small", epochs=2, batch_size=24, image_size=8, val_fraction=0.4)
PLAIN = replace(SETTINGS, model="test_resnet.r160_in1k", image_size=32, learning_rate=0.002)
# A class name that would run if a page forgot to escape it, and a formula that is none.
NASTY = '<script>alert("$x$")</script>'.replace("/", "\N{DIVISION SLASH}")


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def heights(svg, index):
    """Where the points of line `index` of a figure lie, upwards."""
    path = re.search(rf'<g id="figure-\d+-line-{index}">\s*<path d="([^"]*)"', svg)[1]
    return [-float(point.split()[2]) for point in re.findall(r"[ML] \S+ \S+", path)]


def check_line(svg, index, values):
    """A line is its values in another unit."""
    drawn = np.array(heights(svg, index))
    assert len(drawn) == len(values)
    if len(values) > 1:
        unit, origin = np.polyfit(values, drawn, 1)
        assert unit > 0
        np.testing.assert_allclose(unit * np.array(values) + origin, drawn, atol=1e-3)


def check_against_source(page, folder):
    """The tables and lines that every report has are what the files of the run say."""
    rows = table(folder / "metrics.csv")
    heading, *cells = page.tables["epochs"]
    assert len(cells) == len(rows)
    for column, name in (("validation loss", "val_loss"), ("training loss", "train_loss"), ("all, s", "seconds")):
        shown = [float(line[heading.index(column)]) for line in cells]
        assert shown == pytest.approx([float(row[name]) for row in rows], abs=0.06 if name == "seconds" else 6e-5)
    loss, accuracy, rate, *_ = page.figures
    for svg, index, name in ((loss, 0, "train_loss"), (loss, 1, "val_loss"), (accuracy, 0, "val_top1")):
        check_line(svg, index, [float(row[name]) for row in rows])
    check_line(rate, 0, [float(row["learning_rate"]) for row in rows])
    times = {row[0]: float(row[1]) for row in page.tables["time"][1:]}
    assert set(times) == {*PARTS, "other"}
    for part in PARTS:
        assert times[part] == pytest.approx(sum(float(row[f"{part}_seconds"]) for row in rows), abs=0.006)
    everything = sum(float(row["seconds"]) + float(row["saving_seconds"]) for row in rows)
    assert sum(times.values()) == pytest.approx(everything, abs=0.05)
    config = json.loads((folder / "config.json").read_text())
    settings, known, _, _, versions = (dict(page.tables[f"configuration-{number}"]) for number in range(1, 6))
    assert settings == {name: html.as_typed(value) for name, value in config["settings"].items()}
    assert known["location"] == config["data"]["location"]
    # What nobody chose stands apart.
    assert "fingerprint" not in known
    assert versions["fingerprint"] == config["data"]["fingerprint"]
    assert versions["version of torch"] == config["versions"]["torch"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirty digits of each of three classes, one of them with a nasty name."""
    root, counts = tmp_path_factory.mktemp("data"), [0] * 3
    images = open_dataset("digits").train
    for name, image, label in zip(images.names, images.images, images.labels, strict=True):
        if label < 3 and counts[label] < 30:
            counts[label] += 1
            folder = root / (NASTY if label == 0 else str(label))
            folder.mkdir(exist_ok=True)
            image.save(folder / Path(name).name)
    return root


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    result = ROOM.fit(str(data), SETTINGS, tmp_path_factory.mktemp("runs") / "run", workers=0)
    # The page of the end of training, which classifies nothing anew.
    write_report(result.output, result.output / "end.html", outcomes=result.outcomes)
    return result.output


@pytest.fixture(scope="module")
def broken(data, tmp_path_factory):
    """A run of a network without ACmix layers, stopped in the middle of its second epoch."""

    def stop(progress):
        if (progress.epoch, progress.update) == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    output = tmp_path_factory.mktemp("runs") / "a run"
    with pytest.raises(PreemptedError):
        ROOM.fit(str(data), PLAIN, output, workers=0, reporting=Reporting(on_update=stop))
    return output


@pytest.fixture(scope="module")
def page(finished):
    path = write_report(finished)
    assert path == finished / "report.html"
    return Page(path)


def test_report_of_a_finished_run(finished, page):
    page.check()
    check_against_source(page, finished)
    assert f"<h1>{finished.name}</h1>" in page.text
    assert page.headings[:4] == ["Curves", "Where the time went", "Confusions", "Predictions on validation images"]
    assert {"What a pixel attends to", "The two paths", "Problems", "Configuration"} < set(page.headings)
    summary = json.loads((finished / "summary.json").read_text())
    assert f"{100 * summary['best']:.2f} %" in page.words
    assert "has not finished" not in page.words
    assert NASTY in page.words
    assert NASTY not in page.text
    assert (finished / "end.html").read_text() == page.text


def test_predictions_are_the_worst_and_the_best(finished, page):
    classifier = load_trained(finished / "best.safetensors")
    record = data_record(classifier.training)
    images = open_evaluation(record.location, classifier.classes, record)
    found = list(classify(classifier, images, batch_size=5))
    matrix = tally(found, classifier.classes).confusion_matrix
    assert matrix == evaluate(classifier, images).confusion_matrix
    wrong = sorted((item for item in found if not item.right), key=lambda item: -item.probability)
    assert page.text.count('<figure class="wrong"') == min(12, len(wrong)) + sum(
        not item.right for item in sorted(found, key=lambda item: -item.loss)[:12]
    )
    shown = re.findall(r"\((\S+) %\)\s*is (.*?)\s*loss (\S+)", page.words)
    assert float(shown[0][0]) == pytest.approx(100 * wrong[0].probability, abs=0.06)
    assert shown[0][1] == classifier.classes[wrong[0].label]
    losses = [float(loss) for loss in re.findall(r"loss (\d\S+)", page.words)]
    assert losses[min(12, len(wrong))] == pytest.approx(max(item.loss for item in found), abs=6e-4)
    assert losses[-1] == pytest.approx(sorted(item.loss for item in found if item.right)[:12][-1], abs=6e-4)
    for true, taken, count, _ in page.tables["confused"][1:]:
        assert matrix[classifier.classes.index(true)][classifier.classes.index(taken)] == int(count)


def test_paths_of_every_layer(finished, page):
    rates = table(finished / "rates.csv")
    last = {row["layer"]: row for row in rates if row["epoch"] == "2"}
    heading, *rows = page.tables["rates"]
    assert [row[0] for row in rows] == list(last)
    assert heading[1:3] == ["alpha", "beta"]
    for row in rows:
        assert row[1:3] == [f"{float(last[row[0]][path]):.4f}" for path in ("attention", "convolution")]
        attention, convolution, share = float(row[3]), float(row[4]), float(row[5].removesuffix(" %"))
        assert share == pytest.approx(100 * attention / (attention + convolution), abs=0.1)
    (alpha,) = [svg for svg in page.figures if "alpha, of attention" in svg]
    for index, layer in enumerate(last):
        check_line(alpha, index, [float(row["attention"]) for row in rates if row["layer"] == layer])


@pytest.mark.parametrize(
    ("changes", "legend", "note"),
    [
        ({"label_smoothing": 0.0}, "training", "on augmented images. Validation: after the epoch."),
        (
            {},
            "training, with label smoothing 0.1",
            "images, with label smoothing 0.1. Validation: after the epoch, with",
        ),
        (
            {"class_weights": "balanced", "mixup": 1.0},
            "training, with class weights balanced and 2 more",
            "images, with class weights balanced, label smoothing 0.1, mixup 1. Validation: after the epoch, without",
        ),
        (
            {"loss": "binary_cross_entropy", "label_smoothing": 0.0},
            "training, with loss binary cross entropy",
            "images, with loss binary cross entropy. Validation: after the epoch, without",
        ),
    ],
)
def test_a_training_loss_that_is_no_validation_loss_says_so(finished, tmp_path, changes, legend, note):
    folder = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"settings": config["settings"] | changes}))
    page = Page(write_report(folder, pictures=False))
    assert note in page.words
    assert f"epochs 1 to 2: {legend} from " in page.text


def test_both_norms_are_of_what_is_added(finished):
    network = load_trained(finished / "best.safetensors").model
    images = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    before = explain.path_shares(network, [from_numpy(images)])
    name = before[0].layer
    layer = network.get_submodule(name)
    layer.rate_convolution.data *= 3
    after = explain.path_shares(network, [from_numpy(images)])
    assert after[0].attention == pytest.approx(before[0].attention)
    assert after[0].convolution == pytest.approx(3 * before[0].convolution, rel=1e-5)


def test_report_of_a_broken_run(broken, data):
    with (broken / "problems.jsonl").open("w") as file:
        for number in range(25):
            file.write(json.dumps({"problem": "unreadable", "image": f"<b>{number}", "reason": "cut"}) + "\n")
        names = [f"{number}.png" for number in range(8)]
        file.write(json.dumps({"problem": "loss not finite", "epoch": 1, "images": names}) + "\n")
        file.write(json.dumps({"problem": "gradients not finite", "epoch": 2, "images": []}) + "\n")
        file.write('{"problem": "loss not fin')
    page = Page(write_report(broken)).check()
    check_against_source(page, broken)
    assert "This run has not finished. It ended with: stopped by SIGTERM in epoch 2 after update 2 of" in " ".join(
        page.words.split()
    )
    assert "1 of 2 epochs are finished; the last state lies in epoch 2 of 2, after update 2 of" in page.words
    assert f"acmix train {data} --workers 0 --output '{broken}' --resume\n" in page.words + "\n"
    assert {"Confusions", "25 x unreadable", "1 x line cut off"} < set(page.headings)
    assert "image <b>19; reason cut" in page.words
    assert "and 5 more in problems.jsonl" in page.words
    assert "epoch 1; images 0.png, 1.png, 2.png, 3.png, 4.png and 3 more\n" in page.words
    assert "epoch 2\n" in page.words
    # Without ACmix layers.
    assert "rates" not in page.tables
    assert "What a pixel attends to" not in page.headings
    (broken / "problems.jsonl").unlink()
    quick = Page(write_report(broken, pictures=False)).check()
    assert "acmix report" in quick.words
    assert "data:image/png" not in quick.text


def test_a_run_that_was_killed_may_be_at_work(broken, tmp_path):
    run = shutil.copytree(broken, tmp_path / "run")
    (run / "stopped.json").unlink()
    for path in (run / "states").iterdir():
        path.unlink()
    page = Page(write_report(run, pictures=False))
    assert "It is still at work, or was killed." in page.words
    assert "no state was saved. It cannot be continued" in " ".join(page.words.replace("\n", " ").split())


def test_data_that_have_moved(data, finished, broken, tmp_path):
    moved = data.rename(tmp_path / "moved")
    try:
        for folder in (finished, broken):
            page = Page(write_report(folder, tmp_path / "report.html")).check()
            check_against_source(page, folder)
            assert "No pictures: " in page.words
            assert "does not exist" in page.words
            assert f"if the data have moved, {command('report', folder, 'DATA')} finds them" in page.words
            assert ("Confusions" in page.headings) == (folder == finished)
        page = Page(write_report(broken, tmp_path / "report.html", data=str(moved))).check()
        assert {"Confusions", f"Predictions on validation images of {moved}"} < set(page.headings)
        with pytest.raises(InputError, match="DATA '/nowhere' does not exist"):
            write_report(broken, tmp_path / "report.html", data="/nowhere")
    finally:
        moved.rename(data)


def test_folders_without_a_finished_epoch_are_refused(finished, tmp_path):
    with pytest.raises(InputError, match=r"is not a run: config.json missing; give"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="nowhere is not a folder; make it first"):
        write_report(finished, tmp_path / "nowhere" / "report.html")
    with pytest.raises(InputError, match="output must be a file, got the folder"):
        write_report(finished, tmp_path)
    shutil.copy(finished / "config.json", tmp_path)
    with pytest.raises(InputError, match=r"not a run with a finished epoch: metrics.csv, best.safetensors missing"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("metrics.csv", "epoch,val_top1\n1,high\n", "metrics.csv is damaged: it has no column backward_seconds, "),
        ("metrics.csv", None, "metrics.csv is damaged: could not convert"),
        ("metrics.csv", "epoch\n\udce9\n", "metrics.csv is damaged: 'utf-8' codec can't decode byte 0xe9"),
        ("rates.csv", "epoch,layer,attention,convolution\n1,a\n", "rates.csv is damaged: "),
        ("config.json", "{}", "config.json is damaged: settings, data, "),
        ("config.json", '"model": ', "config.json is damaged: settings.model missing"),
    ],
)
def test_damaged_files_are_named(finished, tmp_path, name, content, rule):
    run = shutil.copytree(finished, tmp_path / "run")
    text = (run / name).read_text()
    if content == '"model": ':
        content = text.replace(content, '"network": ')
    content = re.sub(r"\n1,", "\n1,high", text) if content is None else content
    (run / name).write_text(content, errors="surrogateescape")
    with pytest.raises(InputError, match=re.escape(rule)):
        write_report(run)


def test_comparison(finished, broken, tmp_path):
    empty = tmp_path / "<b>empty"
    empty.mkdir()
    shutil.copy(broken / "config.json", empty)
    runs = [read_run(folder) for folder in (finished, broken, empty)]
    comparison = compare_runs(runs)
    page = Page(write_comparison(runs, comparison, tmp_path / "page.html")).check()
    shown = {row[0]: row[1:] for row in page.tables["runs"]}
    assert shown[""] == [str(finished), str(broken), str(empty)]
    assert shown["state"] == ["finished", "stopped, 1 of 2 epochs", "unfinished, 0 of 2 epochs"]
    best = json.loads((finished / "summary.json").read_text())
    assert shown["best"][0] == f"top-1 {best['best']:.2%} in epoch {best['best_epoch']}"
    assert shown["best"][2] == shown["images/s, median"][2] == "-"
    assert shown["parameters"][1] == f"{json.loads((broken / 'config.json').read_text())['parameters'] / 1e6:.2f} M"
    differing = {row[0]: row[1:] for row in page.tables["differing"][1:]}
    assert differing == {
        "model": [SETTINGS.model, PLAIN.model, PLAIN.model],
        "image_size": ["8", "32", "32"],
        "learning_rate": ["0.001", "0.002", "0.002"],
    }
    assert ">a run<" in page.figures[0]
    check_line(page.figures[0], 0, [row["val_top1"] for row in runs[0].rows])
    check_line(page.figures[0], 1, [row["val_top1"] for row in runs[1].rows])
    long = [replace(runs[0], folder=tmp_path / f"{index}" / ("long" * 20)) for index in range(2)]
    page = Page(write_comparison(long, compare_runs(long), tmp_path / "long.html")).check()
    assert page.figures[0].count(f">...{('long' * 20)[-37:]}<") == 2
    alone = Page(write_comparison(runs[2:], compare_runs(runs[2:]), tmp_path / "alone.html")).check()
    assert "No run has finished an epoch." in alone.words
    assert "Nowhere: settings, data and versions are the same." in alone.words
