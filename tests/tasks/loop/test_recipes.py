from dataclasses import fields

import pytest

from acmix import InputError
from acmix.models.names import check_name
from acmix.tasks.loop import recipes
from acmix.tasks.loop.settings import Settings, check_setting


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_are_valid(name):
    settings = recipes.resolve({"model": "acmix_resnet26"} | recipes.load(name), {})
    settings.check()
    check_name(settings.model)
    assert name.split("_")[0] in settings.model or name in ("small", "finetune")


def test_the_published_recipe():
    settings = recipes.resolve(recipes.load("resnet50"), {})
    assert settings.model == "acmix_resnet50"
    assert (settings.epochs, settings.warmup_epochs, settings.warmup_start) == (90, 5, 0.25)
    assert (settings.optimizer, settings.learning_rate, settings.momentum) == ("sgd", 0.1, 0.9)
    assert (settings.weight_decay, settings.label_smoothing, settings.image_size) == (1e-4, 0.1, 224)


def test_small_is_what_settings_are_by_themselves():
    assert recipes.resolve({"model": "a"} | recipes.load("small"), {}) == Settings(model="a")


def test_printed_settings_are_a_recipe(tmp_path):
    settings = recipes.resolve(recipes.load("resnet38_a2"), {"batch_size": 7, "clip_norm": None})
    path = tmp_path / "mine.yaml"
    path.write_text(recipes.as_yaml(settings))
    assert recipes.resolve(recipes.load(str(path)), {}) == settings


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("epoch: 3", "there is no setting 'epoch'; the nearest are epochs"),
        ("epochs: many", "epochs must be a whole number, got 'many'"),
        ("epochs: true", "epochs must be a whole number, got True"),
        ("warmup_epochs: 1.5", "warmup_epochs must be a whole number or null, got 1.5"),
        ("loss: hinge", "loss must be one of cross_entropy, binary_cross_entropy, got 'hinge'"),
        ("- epochs", "must be a mapping of settings, got list"),
        ("epochs: [", "is not YAML"),
        ("base: resnet51", "there is no recipe and no file 'resnet51'; the nearest are resnet50"),
        ("base: 3", "base must name a recipe, got 3"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_bad_recipes(tmp_path, content, rule):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=rule):
        recipes.load(str(path))


def test_a_recipe_on_itself(tmp_path):
    path = tmp_path / "round.yaml"
    path.write_text(f"base: {path}")
    with pytest.raises(InputError, match="builds on itself"):
        recipes.load(str(path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("learning_rate=1e-3", ("learning_rate", 1e-3)),
        ("learning_rate=1", ("learning_rate", 1.0)),
        ("clip_norm=null", ("clip_norm", None)),
        ("random_augment=rand-m7-mstd0.5-inc1", ("random_augment", "rand-m7-mstd0.5-inc1")),
        ("recompute=true", ("recompute", True)),
        ("precision=bfloat16", ("precision", "bfloat16")),
    ],
)
def test_assignments(text, value):
    assert recipes.parse_assignment(text) == value


def test_bad_assignments():
    with pytest.raises(InputError, match="must be written name=value, got 'epochs'"):
        recipes.parse_assignment("epochs")
    with pytest.raises(InputError, match="there is no setting 'mixupp'; the nearest are mixup"):
        recipes.parse_assignment("mixupp=1")


def test_what_decides_a_setting(tmp_path):
    assert recipes.choose("digits", None, {}).model == "acmix_resnet14_small"
    assert recipes.choose("photos", None, {}) == recipes.choose("photos", "small", {"model": "acmix_resnet26"})
    (tmp_path / "config.json").write_text('{"settings": {"model": "resnet18", "epochs": 4}}')
    resumed = recipes.choose("digits", None, {"epochs": 5}, resumed=tmp_path)
    assert resumed == Settings(model="resnet18", epochs=5)
    assert recipes.choose("digits", "small", {}, resumed=tmp_path).model == "acmix_resnet14_small"
    assert recipes.choose("digits", None, {}, resumed=tmp_path / "none") == Settings(model="acmix_resnet14_small")


def test_every_setting_has_a_checkable_type():
    for field in fields(Settings):
        if field.name != "model":
            assert check_setting(field.name, field.default) == field.default


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0, at most 1, got 0.0"),
        ({"average_decay": 1.0}, "average_decay must be between 0 and 1"),
        ({"loss_threshold": 0.2}, "loss_threshold is for loss binary_cross_entropy"),
        ({"momentum": 1.0}, "momentum must be 0 to below 1"),
        ({"most_failures": 0}, "most_failures must be at least 1"),
        ({"synchronize_norms": True}, "synchronize_norms needs an accelerator"),
    ],
)
def test_values_out_of_range(changes, rule):
    if "synchronize_norms" in changes:
        torch = pytest.importorskip("torch")
        if torch.accelerator.is_available():
            pytest.skip("there is an accelerator")
    with pytest.raises(InputError, match=rule):
        Settings(model="a", **changes).check()
