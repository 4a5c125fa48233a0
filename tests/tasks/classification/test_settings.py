from dataclasses import fields

import pytest
import torch

from acmix import InputError
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop.fields import check_setting, defaults
from acmix.tasks.loop.settings import LoopSettings


def test_every_setting_has_a_checkable_type():
    for field in fields(Settings):
        if field.name != "model":
            assert check_setting(Settings, field.name, field.default) == field.default


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0, at most 1, got 0.0"),
        ({"average_decay": 1.0}, "average_decay must be between 0 and 1"),
        ({"loss_threshold": 0.2, "loss": "cross_entropy"}, "loss_threshold is for loss binary_cross_entropy"),
        ({"random_augment": "rand-m7", "color_jitter": 0.1}, "color_jitter is for images without random_augment"),
        ({"smallest_crop": 0.0}, "smallest_crop must be above 0"),
        ({"momentum": 1.0}, "momentum must be 0 to below 1"),
        ({"most_failures": 0}, "most_failures must be at least 1"),
        ({"synchronize_norms": True}, "synchronize_norms needs an accelerator"),
    ],
)
def test_values_out_of_range(changes, rule):
    if "synchronize_norms" in changes and torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    with pytest.raises(InputError, match=rule):
        Settings(model="a", **changes).check()


def test_every_training_has_the_settings_of_the_loop():
    assert defaults(LoopSettings).items() <= defaults(Settings).items()
    assert "model" not in defaults(Settings)
    with pytest.raises(InputError, match="there is no setting 'mixup'"):
        check_setting(LoopSettings, "mixup", 0.5)
    with pytest.raises(InputError, match="epochs must be at least 1, got 0"):
        LoopSettings(model="a", epochs=0).check()


def test_the_loss_is_that_of_the_data():
    settings = Settings(model="a")
    assert settings.suited(multi_label=False).loss == "cross_entropy"
    assert settings.suited(multi_label=True).loss == "binary_cross_entropy"
    for multi_label in (False, True):
        chosen = Settings(model="a", loss="binary_cross_entropy", loss_threshold=0.2)
        assert chosen.suited(multi_label=multi_label) == chosen
    with pytest.raises(InputError, match="loss cross_entropy is of images with one label each"):
        Settings(model="a", loss="cross_entropy").suited(multi_label=True)
    with pytest.raises(InputError, match="loss_threshold is for loss binary_cross_entropy"):
        Settings(model="a", loss_threshold=0.2).suited(multi_label=False)
