import json

from acmix.tasks.classification.choice import choose
from acmix.tasks.classification.settings import Settings


def test_what_decides_a_setting(tmp_path):
    assert choose("digits", None, {}).model == "acmix_resnet14_small"
    assert choose("photos", None, {}) == choose("photos", "small", {"model": "acmix_resnet26"})
    config = {"settings": {"model": "resnet18", "epochs": 4}, "data": {"location": "digits"}, "processes": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    resumed = choose("digits", None, {"epochs": 5}, base=tmp_path)
    assert resumed == Settings(model="resnet18", epochs=5)
    assert choose("digits", "small", {}, base=tmp_path).model == "acmix_resnet14_small"
    assert choose("digits", None, {}, base=tmp_path / "none") == Settings(model="acmix_resnet14_small")
