import pytest

from acmix import InputError
from acmix.models.names import check_name
from acmix.tasks.classification.settings import Settings
from acmix.tasks.kinds import KINDS
from acmix.tasks.loop import recipes


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_are_valid(name):
    kind = KINDS[recipes.task_of(name)]
    settings = kind.choose("", name, {})
    settings.check()
    if kind.settings is Settings:
        check_name(settings.model)
        assert name.split("_")[0] in settings.model or name in ("small", "finetune")


def test_the_published_recipe():
    settings = recipes.resolve(recipes.load("resnet50", Settings), {}, Settings)
    assert settings.model == "acmix_resnet50"
    assert (settings.epochs, settings.warmup_epochs, settings.warmup_start) == (90, 5, 0.25)
    assert (settings.optimizer, settings.learning_rate, settings.momentum) == ("sgd", 0.1, 0.9)
    assert (settings.weight_decay, settings.label_smoothing, settings.image_size) == (1e-4, 0.1, 224)


def test_small_is_what_settings_are_by_themselves():
    assert recipes.resolve({"model": "a"} | recipes.load("small", Settings), {}, Settings) == Settings(model="a")


def test_printed_settings_are_a_recipe(tmp_path):
    settings = recipes.resolve(recipes.load("resnet38_a2", Settings), {"batch_size": 7, "clip_norm": None}, Settings)
    path = tmp_path / "mine.yaml"
    path.write_text(recipes.as_yaml(settings))
    assert recipes.resolve(recipes.load(str(path), Settings), {}, Settings) == settings


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("epoch: 3", "there is no setting 'epoch'; the nearest are epochs"),
        ("epochs: many", "epochs must be a whole number, at least 1, got 'many'"),
        ("epochs: true", "epochs must be a whole number, at least 1, got True"),
        ("warmup_epochs: 1.5", "warmup_epochs must be a whole number, at least 0, or none, got 1.5"),
        ("loss: hinge", "loss must be one of cross_entropy, binary_cross_entropy, or none, got 'hinge'"),
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
        recipes.load(str(path), Settings)


def test_a_recipe_on_itself(tmp_path):
    path = tmp_path / "round.yaml"
    path.write_text(f"base: {path}")
    with pytest.raises(InputError, match="builds on itself"):
        recipes.load(str(path), Settings)


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
    assert recipes.parse_assignment(text, Settings) == value


def test_bad_assignments():
    with pytest.raises(InputError, match="must be written name=value, got 'epochs'"):
        recipes.parse_assignment("epochs", Settings)
    with pytest.raises(InputError, match="there is no setting 'mixupp'; the nearest are mixup"):
        recipes.parse_assignment("mixupp=1", Settings)
