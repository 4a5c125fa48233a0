import csv
import errno
import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from acmix import InputError
from acmix.checkpoints.stored import load_trained
from acmix.data import open_dataset
from acmix.data.writing import write_shards
from acmix.errors import PreemptedError, TrainingError
from acmix.explain import kernel_changes
from acmix.pages.report import write_report
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import run, states
from acmix.tasks.loop.progress import PARTS, Reporting
from acmix.tasks.record import read_run

# A few images and a tiny network: what is tested is the run, not the accuracy.
TINY = Settings(model="test_resnet.r160_in1k", epochs=2, batch_size=16, image_size=32, precision="float32")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    rows = []
    output = tmp_path_factory.mktemp("runs") / "new" / "run"
    result = ROOM.fit(data, TINY, output, workers=0, reporting=Reporting(on_epoch=rows.append))
    return result, rows


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_run_holds_its_files(finished):
    output = finished[0].output
    names = {"best.safetensors", "last.safetensors", "metrics.csv", "config.json", "summary.json"}
    assert {path.name for path in output.iterdir()} == names | {"tensorboard", "states"}
    assert [path.name for path in states.paths(output)] == ["update-000000003.pt", "update-000000006.pt"]
    assert list((output / "tensorboard").glob("events.out.*"))


def test_metrics_have_one_row_an_epoch(finished):
    result, rows = finished
    with (result.output / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in table] == [1, 2]
    assert [{key: float(value) for key, value in row.items()} for row in table] == rows
    names = {"epoch", "train_loss", "val_loss", "val_top1", "val_top5", "learning_rate", "seconds"}
    parts = {f"{part}_seconds" for part in PARTS}
    assert set(table[0]) == names | {"images_per_second", "waiting"} | parts
    for row in rows:
        assert all(row[part] > 0 for part in parts)
        # Saving belongs to the time between epochs.
        assert sum(row[part] for part in parts - {"saving_seconds"}) <= row["seconds"]
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_best_checkpoint_is_the_best_epoch(finished):
    result, rows = finished
    best = max(rows, key=lambda row: (row["val_top1"], -row["val_loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.best == pytest.approx(best["val_top1"])
    assert result.validation.top5 == pytest.approx(best["val_top5"])
    record = load_trained(result.output / "best.safetensors").training
    assert record["metrics"] == best
    assert load_trained(result.output / "last.safetensors").training["metrics"] == rows[-1]


def test_summary_and_configuration(finished):
    result, _ = finished
    summary = json.loads((result.output / "summary.json").read_text())
    config = json.loads((result.output / "config.json").read_text())
    assert summary["best"] == result.best
    matrix = torch.tensor(summary["validation"]["confusion_matrix"])
    assert matrix.sum() == summary["validation"]["images"] == config["validation_images"] == 12
    assert config["train_images"] == 48
    assert config["classes"] == list("012345")
    assert config["settings"]["epochs"] == 2
    assert config["data"]["was_split"] is True


def test_a_run_is_reproducible(finished, data, tmp_path):
    rows = finished[1]
    again = []
    ROOM.fit(data, TINY, tmp_path, workers=0, reporting=Reporting(on_epoch=again.append))
    learned = ("train_loss", "val_loss", "val_top1", "learning_rate")
    assert [[row[name] for name in learned] for row in again] == [[row[name] for name in learned] for row in rows]


def test_a_run_is_never_overwritten(finished, data):
    output = finished[0].output
    before = contents(output)
    with pytest.raises(InputError, match="already holds a run"):
        ROOM.fit(data, TINY, output, workers=0)
    with pytest.raises(InputError, match="finished run"):
        ROOM.fit(data, TINY, output, workers=0, resume=True)
    assert contents(output) == before


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    """A run of three epochs that was stopped in its second."""
    output = tmp_path_factory.mktemp("stopped")

    def stop(row):
        if row["epoch"] == 2:
            raise StopError

    with pytest.raises(StopError):
        ROOM.fit(data, replace(TINY, epochs=3), output, workers=0, reporting=Reporting(on_epoch=stop))
    return output


def test_resume_continues_after_the_last_state(data, stopped, tmp_path):
    output = shutil.copytree(stopped, tmp_path / "run")
    # As a version wrote it that did not know a setting.
    config = run.read_json(output / run.CONFIG)
    del config["settings"]["quiet_shifts"]
    run.write_json(output / run.CONFIG, config)
    rows = []
    result = ROOM.fit(
        data, replace(TINY, epochs=3), output, workers=0, resume=True, reporting=Reporting(on_epoch=rows.append)
    )
    assert [row["epoch"] for row in rows] == [3]
    assert result.epochs == 3
    with (output / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [({"learning_rate": 0.5}, r"learning_rate was 0\.001, is 0\.5"), ({"epochs": 9}, "epochs was 3, is 9")],
)
def test_resume_needs_equal_settings(data, stopped, changes, rule):
    before = contents(stopped)
    with pytest.raises(InputError, match=rule):
        ROOM.fit(
            data,
            replace(TINY, epochs=3, **changes) if "epochs" not in changes else replace(TINY, **changes),
            stopped,
            workers=0,
            resume=True,
        )
    assert contents(stopped) == before


def test_resume_without_a_run(data, tmp_path):
    with pytest.raises(InputError, match="no run to resume"):
        ROOM.fit(data, TINY, tmp_path, resume=True)


def test_start_weights_keep_a_fresh_head_for_other_classes(finished, data, tmp_path):
    for name in "012":
        shutil.copytree(Path(data) / name, tmp_path / "three" / name)
    start = finished[0].output / "best.safetensors"
    output = tmp_path / "run"
    ROOM.fit(str(tmp_path / "three"), replace(TINY, epochs=1, learning_rate=1e-9), output, weights=start, workers=0)
    before, after = safetensors.torch.load_file(start), load_trained(output / "last.safetensors").model.state_dict()
    assert after["fc.weight"].shape[0] == 3
    assert torch.allclose(before["conv1.0.weight"], after["conv1.0.weight"], atol=1e-6)


def test_start_weights_of_another_network(data, finished, tmp_path):
    settings = replace(TINY, model="acmix_resnet14_small")
    with pytest.raises(InputError, match="do not fit the model"):
        ROOM.fit(data, settings, tmp_path / "run", weights=finished[0].output / "best.safetensors")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": math.nan}, "learning_rate must be positive"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"warmup_epochs": 2}, "warmup_epochs must be 0 to below epochs = 2"),
        ({"label_smoothing": 1.0}, "label_smoothing must be"),
        ({"seed": -1}, "seed must be"),
        ({"optimizer": "adamww"}, "optimizer 'adamww' is unknown to timm; .*adamw"),
        ({"model": "acmix_resnet27"}, "unknown model 'acmix_resnet27'.*acmix_resnet26"),
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"quiet_shifts": True}, "takes no quiet_shifts; leave it out"),
        ({"acmix_stages": 4}, "takes no acmix_stages; leave it out"),
        ({"acmix_stages": "0,4"}, "acmix_stages must be stages of 1, 2, 3, 4, or 0 for none, got '0,4'"),
        ({"acmix_stages": 5}, "acmix_stages must be 0 to 4, got 5"),
    ],
)
def test_bad_settings_make_no_folder(data, tmp_path, changes, rule):
    with pytest.raises(InputError, match=rule):
        ROOM.fit(data, replace(TINY, **changes), tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


def test_rates_of_every_epoch_survive_a_stop(data, tmp_path):
    settings = replace(TINY, model="acmix_resnet14_small", image_size=8, learning_rate=0.01, quiet_shifts=True)
    ROOM.fit(data, settings, tmp_path / "whole", workers=0)

    def stop(progress):
        if (progress.epoch, progress.update) == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError):
        ROOM.fit(data, settings, tmp_path / "run", workers=0, reporting=Reporting(on_update=stop))
    stopped = json.loads((tmp_path / "run" / "stopped.json").read_text())
    assert stopped["kind"] == "PreemptedError"
    assert "stopped by SIGTERM in epoch 2 after update 2 of 3" in stopped["reason"]
    ROOM.fit(data, settings, tmp_path / "run", workers=0, resume=True)
    assert not (tmp_path / "run" / "stopped.json").exists()
    text = (tmp_path / "run" / "rates.csv").read_text()
    assert text == (tmp_path / "whole" / "rates.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    weights = safetensors.torch.load_file(tmp_path / "run" / "last.safetensors")
    layers = [name.removesuffix(".rate_attention") for name in weights if name.endswith("rate_attention")]
    assert {(row["epoch"], row["layer"]) for row in rows} == {(epoch, name) for epoch in "12" for name in layers}
    for row in rows[len(layers) :]:
        assert float(row["attention"]) == weights[f"{row['layer']}.rate_attention"].item() != 0.5
        assert float(row["convolution"]) == weights[f"{row['layer']}.rate_convolution"].item()
    network = load_trained(tmp_path / "run" / "last.safetensors").model
    # Against unit shifts they would have moved by 1 - sqrt(2 / C) at least.
    assert all(0 < change.distance < 1 - 0.5**0.5 for change in kernel_changes(network))


def test_a_stop_that_cannot_be_recorded_hides_nothing(data, tmp_path, monkeypatch):
    told = []

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def stop(_):
        monkeypatch.setattr(run, "write_json", full)
        raise StopError

    reporting = Reporting(on_update=stop, on_problem=told.append, on_stop=lambda: told.append("stop"))
    with pytest.raises(StopError):
        ROOM.fit(data, TINY, tmp_path / "run", workers=0, reporting=reporting)
    assert told == [f"{tmp_path / 'run' / 'stopped.json'} cannot be written: No space left on device", "stop"]


def test_a_run_stops_where_there_is_no_patience_left(data, tmp_path):
    # It learns next to nothing, so that no epoch is better than the first.
    settings = replace(TINY, epochs=9, patience=2, learning_rate=1e-12, freeze=4)
    result = ROOM.fit(data, settings, tmp_path / "run", workers=0)
    assert (result.epochs, result.best_epoch) == (3, 1)
    assert result.stopped_early == "2 epochs without a better top-1, patience = 2"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stopped_early"] == result.stopped_early
    status = "finished early, 3 of 9 epochs: 2 epochs without a better top-1, patience = 2"
    assert read_run(tmp_path / "run").status == status
    assert result.stopped_early in write_report(tmp_path / "run", pictures=False).read_text()
    with pytest.raises(InputError, match="holds a finished run"):
        ROOM.fit(data, settings, tmp_path / "run", workers=0, resume=True)
    # Patience counts what the run itself has seen: killed before its summary, it ends at once.
    (tmp_path / "run" / "summary.json").unlink()
    again = ROOM.fit(data, settings, tmp_path / "run", workers=0, resume=True)
    assert (again.epochs, again.stopped_early) == (3, result.stopped_early)
    whole = ROOM.fit(data, replace(settings, epochs=3), tmp_path / "whole", workers=0)
    assert (whole.epochs, whole.stopped_early) == (3, None)


def test_weights_that_overflow_end_a_run_in_a_line(data, tmp_path):
    settings = replace(TINY, epochs=1, optimizer="sgd", learning_rate=1e38, warmup_epochs=0)
    with pytest.raises(TrainingError, match="^val_loss after epoch 1 not finite: weights have overflowed"):
        ROOM.fit(data, settings, tmp_path / "run", workers=0)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_class_weights_are_told_and_need_labels(data, tmp_path):
    for name in "012":
        shutil.copytree(Path(data) / name, tmp_path / "few" / name)
    for path in sorted((tmp_path / "few" / "1").iterdir())[5:]:
        path.unlink()
    told = {}
    settings = replace(TINY, epochs=1, class_weights="balanced")
    ROOM.fit(str(tmp_path / "few"), settings, tmp_path / "run", workers=0, reporting=Reporting(on_start=told.update))
    # 8, 4 and 8 images to train on.
    assert told["class weights"] == "balanced, 0.833 (0) to 1.67 (1)"
    shards(tmp_path / "few", tmp_path / "shards")
    with pytest.raises(InputError, match="^class_weights must be none: .* those of shards are not$"):
        ROOM.fit(str(tmp_path / "shards"), settings, tmp_path / "other", workers=0)


def shards(data, output):
    images = open_dataset(str(data))
    write_shards({"train": images.train, "validation": images.validation}, output)
