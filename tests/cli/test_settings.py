import pytest
import yaml

from acmix import InputError
from acmix.cli.settings import OPTIONS, changes
from tests.commands import call

GIVEN = {
    "model": "acmix_resnet38",
    "epochs": 7,
    "batch_size": 3,
    "learning_rate": 0.25,
    "weight_decay": 0.5,
    "optimizer": "sgd",
    "warmup_epochs": 2,
    "label_smoothing": 0.0,
    "image_size": 40,
    "precision": "bfloat16",
    "seed": 9,
    "val_fraction": 0.4,
}


def test_every_option_changes_its_setting_alone(capsys):
    assert GIVEN.keys() | {"deterministic"} == set(OPTIONS)
    code, out, _ = call(capsys, "train", "digits", "--print-config")
    plain = yaml.safe_load(out)
    assert (code, plain["model"], plain["deterministic"]) == (0, "acmix_resnet14_small", False)
    arguments = [part for name, value in GIVEN.items() for part in (f"--{name.replace('_', '-')}", value)]
    code, out, _ = call(capsys, "train", "digits", *arguments, "--deterministic", "--print-config")
    assert (code, yaml.safe_load(out)) == (0, plain | GIVEN | {"deterministic": True})


@pytest.mark.parametrize(("spelling", "name"), [("--lr", "learning_rate"), ("--input-size", "image_size")])
def test_spellings_of_the_field_are_the_same_options(capsys, spelling, name):
    code, out, _ = call(capsys, "train", "digits", spelling, "16", "--print-config")
    assert (code, yaml.safe_load(out)[name]) == (0, 16)


def test_options_and_assignments_are_one_set_of_changes():
    assert changes({"learning_rate": 0.1, "epochs": None}, ["clip_norm=1"]) == {"learning_rate": 0.1, "clip_norm": 1.0}
    with pytest.raises(InputError, match="^learning_rate is given twice; leave one out$"):
        changes({"learning_rate": 0.1}, ["learning_rate=1"])
