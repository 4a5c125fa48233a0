"""The table of kinds, and how data, recipes and runs say which is meant."""

import json

import pytest

from acmix import InputError
from acmix.tasks.kinds import KINDS, kind_of
from acmix.tasks.loop import recipes


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_room_has_all_doors(kind):
    assert kind.settings.task == kind.name
    assert kind.measures[0].share
    assert recipes.task_of(kind.recipe) == kind.name
    assert kind.choose("", None, {}) == kind.choose("", kind.recipe, {})
    assert {"score", "top"} - {name for name in ("score", "top") if takes(kind, name)}
    assert callable(kind.room.fit)
    for module, name in (("inference", "measure"), ("networks", "multiply_adds")):
        assert callable(kind._door(module, name))


def takes(kind, option):
    try:
        kind.check_options({option: 1})
    except InputError:
        return False
    return True


def test_a_recipe_is_of_the_kind_of_the_one_beneath(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: small\nepochs: 3\n")
    assert recipes.task_of(str(tmp_path / "mine.yaml")) == "classification"
    (tmp_path / "other.yaml").write_text("task: something\nbase: small\n")
    with pytest.raises(InputError, match="is of something, its base 'small' is not"):
        recipes.task_of(str(tmp_path / "other.yaml"))
    (tmp_path / "new.yaml").write_text("task: something\nepochs: 3\n")
    with pytest.raises(InputError, match=r"^recipe '.*' is of something; DATA digits is of classification$"):
        kind_of("digits", str(tmp_path / "new.yaml"))
    with pytest.raises(InputError, match=r"^recipe '.*' is of something; this is classification$"):
        recipes.load(str(tmp_path / "new.yaml"), KINDS["classification"].settings)


def test_a_run_that_goes_on_has_a_kind(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"task": "something"}))
    with pytest.raises(InputError, match=r"^the run .* is of something; DATA digits is of classification$"):
        kind_of("digits", base=tmp_path)
    # Of data that may be several kinds, or are none, run and recipe must agree.
    with pytest.raises(InputError, match=r"^the run .* is of something, recipe 'small' is of classification; name a"):
        kind_of(str(tmp_path), "small", tmp_path)
    # Runs of earlier versions do not say theirs.
    (tmp_path / "config.json").write_text("{}")
    assert kind_of("digits", base=tmp_path).name == "classification"
