import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from acmix import InputError
from acmix.cli.settings import changes
from acmix.cli.wording import SettingsOf
from acmix.tasks.classification.settings import Settings
from acmix.tasks.kinds import KINDS
from acmix.tasks.loop.fields import settings_of
from acmix.tasks.loop.settings import LoopSettings
from tests.commands import call

# A value of every setting that is not its default.
GIVEN = {
    "model": "acmix_resnet38",
    "epochs": 7,
    "batch_size": 3,
    "accumulate": 2,
    "optimizer": "sgd",
    "momentum": 0.5,
    "learning_rate": 0.25,
    "learning_rate_batch": 8,
    "learning_rate_scaling": "square_root",
    "weight_decay": 0.5,
    "layer_decay": 0.75,
    "warmup_epochs": 2,
    "warmup_start": 0.5,
    "clip_norm": 1.5,
    "average_decay": 0.9,
    "patience": 4,
    "freeze": "layer1,conv1",
    "synchronize_norms": True,
    "recompute": True,
    "precision": "bfloat16",
    "seed": 9,
    "val_fraction": 0.4,
    "deterministic": True,
    "most_failures": 3,
    "most_unreadable": 0.5,
    "multi_label": True,
    "loss": "binary_cross_entropy",
    "loss_threshold": 0.25,
    "class_weights": "balanced",
    "label_smoothing": 0.0,
    "mixup": 0.5,
    "cutmix": 0.5,
    "random_augment": "rand-m7-mstd0.5-inc1",
    "random_erase": 0.5,
    "smallest_crop": 0.5,
    "flip": 0.25,
    "color_jitter": 0.0,
    "repeats": 3,
    "acmix_stages": "3,4",
    "quiet_shifts": True,
    "drop_rate": 0.5,
    "drop_path": 0.5,
    "image_size": 40,
    "crop_share": 0.5,
}


def typed(name, value):
    option = f"--{name.replace('_', '-')}"
    return [option] if value is True else [option, value]


def test_every_setting_is_an_option_that_changes_it_alone(capsys):
    assert set(GIVEN) == {field.name for field in fields(Settings)}
    code, out, _ = call(capsys, "train", "digits", "--print-config")
    plain = yaml.safe_load(out)
    assert (code, plain["model"], plain["deterministic"]) == (0, "acmix_resnet14_small", False)
    assert all(plain[name] != value for name, value in GIVEN.items())
    code, out, _ = call(
        capsys, "train", "digits", *(part for item in GIVEN.items() for part in typed(*item)), "--print-config"
    )
    assert (code, yaml.safe_load(out)) == (0, {"task": "classification"} | GIVEN)


def test_what_a_recipe_sets_can_be_taken_back(capsys, tmp_path):
    (tmp_path / "own.yaml").write_text("clip_norm: 1\nrecompute: true\nrandom_augment: rand-m7\n")
    options = ["--clip-norm", "none", "--no-recompute", "--random-augment", "none", "--print-config"]
    code, out, _ = call(capsys, "train", "digits", "--recipe", tmp_path / "own.yaml", *options)
    found = yaml.safe_load(out)
    assert (code, found["clip_norm"], found["recompute"], found["random_augment"]) == (0, None, False, None)


def test_help_says_what_every_setting_may_be(capsys):
    for command in (["train"], ["study", "run"]):
        _, out, _ = call(capsys, *command, "--help")
        words = " ".join(out.split())
        for name, setting in settings_of(Settings).items():
            if command == ["train"] or name not in ("quiet_shifts", "acmix_stages", "patience", "multi_label"):
                assert f"--{name.replace('_', '-')}" in words
                assert setting.kinds == (bool,) or f"({setting.in_words})" in words


def test_settings_are_listed_and_documented(capsys):
    code, out, err = call(capsys, "recipes", "--settings")
    assert (code, err) == (0, "")
    assert all(re.search(rf"^ +{name} ", out, re.MULTILINE) for name in GIVEN)
    code, table, err = call(capsys, "recipes", "--settings", "--markdown")
    assert (code, err) == (0, "")
    assert table.splitlines()[2].startswith("| `model` | text |  |")
    names = [line.split("`")[1] for line in table.splitlines()[2:]]
    assert set(names) == set().union(*(settings_of(kind.settings) for kind in KINDS.values()))
    # What is the same for all kinds stands once, what differs in range, default or meaning for each.
    assert names.count("epochs") == 1
    assert [line for line in table.splitlines() if "`flip`" in line and "Of detection: " in line and "| 0.5 |" in line]
    assert [
        line for line in table.splitlines() if "`flip`" in line and "Of classification: " in line and "none" in line
    ]
    # Made with: acmix recipes --settings --markdown
    assert (Path(__file__).parents[2] / "docs" / "settings.md").read_text().endswith(f"\n\n{table}")
    for wrong in (["--markdown"], ["--settings", "--name", "small"]):
        assert call(capsys, "recipes", *wrong)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "many"], "--epochs must be a whole number, at least 1, got 'many'"),
        (["--lr"], "--learning-rate needs a value; see acmix train --help"),
        (["--wd", "1"], "there is no --wd; the nearest is --weight-decay"),
        (["--set", "lr=1"], "there is no setting 'lr'; the nearest are learning_rate"),
        (["--epochs", "3.5"], "--epochs must be a whole number, at least 1, got 3.5"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--set", "epochs=0"], "--epochs must be at least 1, got 0"),
        (["--lr", "-1"], "--learning-rate must be positive, got -1.0"),
        (["--mixup", "inf"], "--mixup must be a number, at least 0, got 'inf'"),
        (["--mixup", ".inf"], "--mixup must be at least 0, got inf"),
        (["--loss", "mse"], "--loss must be one of cross_entropy, binary_cross_entropy, or none, got 'mse'"),
        (["--warmup-epochs", "30"], "--warmup-epochs must be 0 to below epochs = 30, got 30"),
        (["--optimizer", "adamww"], "--optimizer 'adamww' is unknown to timm; the nearest are adamw"),
    ],
)
def test_errors_name_the_option_and_its_range(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "train", "digits", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"acmix train: error: {message}")
    assert err.count("\n") == 1


@dataclass(frozen=True, kw_only=True)
class Boxes(LoopSettings):
    """Settings of another kind of training.

    Attributes:
        anchors: Boxes a place.
    """

    task: ClassVar[str] = "boxes"

    anchors: int = 9


def test_options_of_all_kinds_are_known_and_refused_where_they_do_not_apply():
    assert {"anchors", "mixup", "epochs"} <= set(SettingsOf((Settings, Boxes)).settings)
    assert changes(Boxes, {"anchors": "3"}, None) == {"anchors": 3}
    with pytest.raises(InputError, match="^anchors is no setting of a training on such data; leave it out$"):
        changes(Settings, {"anchors": "3"}, None)


@pytest.mark.parametrize(("spelling", "name"), [("--lr", "learning_rate"), ("--input-size", "image_size")])
def test_spellings_of_the_field_are_the_same_options(capsys, spelling, name):
    code, out, _ = call(capsys, "train", "digits", spelling, "16", "--print-config")
    assert (code, yaml.safe_load(out)[name]) == (0, 16)


def test_options_and_assignments_are_one_set_of_changes():
    given = changes(Settings, {"learning_rate": "1e-1"}, ["clip_norm=1"])
    assert given == {"learning_rate": 0.1, "clip_norm": 1.0}
    with pytest.raises(InputError, match="^learning_rate is given twice; leave one out$"):
        changes(Settings, {"learning_rate": "0.1"}, ["learning_rate=1"])
