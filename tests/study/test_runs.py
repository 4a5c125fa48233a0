import json
import shutil
from dataclasses import replace

import pytest

from acmix import InputError, storage
from acmix.data import Digits
from acmix.errors import TrainingError
from acmix.study import RESULTS, VARIANTS, Pretraining, Watching, load_study, run_study, save_study, time_study
from acmix.tasks.classification.settings import Settings

SETTINGS = Settings(model="acmix_resnet14_small", epochs=2, batch_size=16, image_size=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixteen zeros and sixteen ones as files."""
    root = tmp_path_factory.mktemp("digits")
    digits = Digits()
    for label in range(2):
        (root / str(label)).mkdir()
        for index in [index for index, other in enumerate(digits.labels) if other == label][:16]:
            digits.images[index].save(root / digits.names[index])
    return str(root)


def study(data, output, settings=SETTINGS, **options):
    options = {"variants": ["equal-rates"], "seeds": 2, "workers": 0, "seconds": 0.01} | options
    return run_study(data, settings, output, **options)


def results(found):
    return [replace(item, seconds=0) for item in found.trainings]


def test_equal_seeds_are_equal_conditions(data, tmp_path, monkeypatch):
    monkeypatch.setitem(VARIANTS, "twin", VARIANTS["acmix"])
    found = study(data, tmp_path, replace(SETTINGS, epochs=1), variants=["acmix", "twin", "acmix"])
    assert [(item.variant, item.seed) for item in found.trainings] == [
        ("acmix", 0),
        ("twin", 0),
        ("acmix", 1),
        ("twin", 1),
    ]
    first, twin, other, _ = (replace(item, variant="", seconds=0) for item in found.trainings)
    assert first == twin
    assert first.train_loss != other.train_loss
    assert len(first.rates) == 4
    assert all(item.forward.fastest > 0 for item in found.variants.values())
    assert found.machine["torch"]
    assert load_study(tmp_path / RESULTS) == found
    again = time_study(tmp_path / RESULTS, seconds=0.01)
    assert load_study(tmp_path / RESULTS) == again != found
    assert again.trainings == found.trainings
    assert not any((tmp_path / "running").iterdir())


def test_learned_rates_are_told_however_they_are_learned(data, tmp_path):
    found = study(data, tmp_path, replace(SETTINGS, epochs=1), variants=["acmix", "fast-rates"])
    rates = {item.variant: item.rates for item in found.trainings if item.seed == 0}
    moved = {name: abs(pairs[0][0] - 0.5) for name, pairs in rates.items()}
    assert moved["fast-rates"] > 5 * moved["acmix"] > 0


def test_two_studies_do_not_work_in_one_folder(data, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    with storage.held(tmp_path), pytest.raises(InputError, match="is of a study that goes on in another process; wait"):
        study(data, tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_interrupted_study_continues_to_the_same_results(data, tmp_path):
    whole = study(data, tmp_path / "whole")
    seen = []

    def stop(name, seed, progress):
        seen.append((name, seed, progress.epoch))
        if (seed, progress.epoch) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="equal-rates, seed 1, was stopped and is saved$"):
        study(data, tmp_path / "cut", watching=Watching(on_update=stop))
    assert len(load_study(tmp_path / "cut" / RESULTS).trainings) == 1

    def fail(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(TrainingError, match=r"No space left on device; .*\.pt is kept, repeat the same command$"):
        study(data, tmp_path / "cut", watching=Watching(on_update=fail))
    begun = []
    watching = Watching(
        on_start=lambda *counts: begun.append(counts), on_update=lambda *at: begun.append((at[1], at[2].epoch))
    )
    # As a version wrote it that did not know a setting.
    unfinished = load_study(tmp_path / "cut" / RESULTS)
    del unfinished.settings["quiet_shifts"]
    save_study(tmp_path / "cut" / RESULTS, unfinished)
    continued = study(data, tmp_path / "cut", watching=watching)
    assert begun[:2] == [(1, 2), (1, 2)]
    assert results(continued) == results(whole)
    with pytest.raises(InputError, match="holds a study under other settings: epochs was 2, is 3; choose another"):
        study(data, tmp_path / "cut", replace(SETTINGS, epochs=3))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"variants": ["acmx"]}, "got 'acmx'; the nearest are acmix"),
        ({"variants": []}, "variants must name at least one of convolution, "),
        ({"seeds": 1}, "seeds must be at least 2, so that there is a spread, got 1"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"seconds": 0}, "seconds must be positive, got 0"),
        ({"settings": replace(SETTINGS, quiet_shifts=True)}, "leave it out, and name quiet-shifts in variants"),
        ({"settings": replace(SETTINGS, model="resnet18")}, "model must be an ACmix network"),
    ],
)
def test_bad_arguments(data, tmp_path, options, rule):
    with pytest.raises(InputError, match=rule):
        study(data, tmp_path / "study", **options)
    assert not (tmp_path / "study").exists()


def test_networks_of_another_version_are_not_timed(tmp_path, made_up):
    made_up.variants["acmx"] = made_up.variants["acmix"]
    save_study(tmp_path / RESULTS, made_up)
    with pytest.raises(InputError, match="variants must be names of networks of the study, got 'acmx'"):
        time_study(tmp_path / RESULTS)
    assert load_study(tmp_path / RESULTS) == made_up


@pytest.mark.parametrize("change", [{"trainings": [{}]}, {"other": 1}, {"variants": 3}, {"variants": {}}])
def test_damaged_results(tmp_path, made_up, change):
    path = tmp_path / RESULTS
    save_study(path, made_up)
    assert load_study(path) == made_up
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=r"study.json is no study: .*give a file that acmix study run wrote"):
        load_study(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_study(tmp_path / "none.json")


def test_a_study_continues_from_its_results_alone_wherever_its_data_lie(data, tmp_path):
    part = study(data, tmp_path / "here")
    part.trainings.pop()
    (tmp_path / "there").mkdir()
    save_study(tmp_path / "there" / RESULTS, part)
    shutil.copytree(data, tmp_path / "data")
    continued = study(str(tmp_path / "data"), tmp_path / "there")
    assert continued.trainings[0] == part.trainings[0]
    assert results(continued) == results(load_study(tmp_path / "here" / RESULTS))
    (tmp_path / "data" / "0" / "more.png").write_bytes(next((tmp_path / "data" / "1").iterdir()).read_bytes())
    with pytest.raises(InputError, match="fingerprint was"):
        study(str(tmp_path / "data"), tmp_path / "there")


def test_pairs_of_a_seed_have_one_start(data, tmp_path):
    own, pretraining = replace(SETTINGS, epochs=1), Pretraining(epochs=1, learning_rate=0.01)
    part = study(data, tmp_path / "here", own, variants=["convolution", "last-stage"], pretraining=pretraining)
    whole, half = part.trainings[:2], part.trainings[2:3]
    part.trainings = [replace(item, accuracy=-1.0) for item in whole + half]
    (tmp_path / "there").mkdir()
    save_study(tmp_path / "there" / RESULTS, part)
    options = {"variants": ["convolution", "last-stage"], "pretraining": pretraining}
    found = study(data, tmp_path / "there", own, **options)
    # Seed 0 was whole and is kept; half of seed 1 started from a network that is not there.
    assert [item.accuracy for item in found.trainings[:2]] == [-1.0, -1.0]
    assert all(item.accuracy >= 0 for item in found.trainings[2:])
    assert [item.seed for item in found.trainings] == [0, 0, 1, 1]


def test_all_networks_of_a_seed_start_from_one_that_was_trained(data, tmp_path):
    own = replace(SETTINGS, epochs=1)
    pretraining = Pretraining(epochs=2, learning_rate=0.01)
    found = study(data, tmp_path, own, variants=["convolution", "last-stage"], pretraining=pretraining)
    assert found.data["pretraining"] == {"epochs": 2, "learning_rate": 0.01}
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "pretrained-0.safetensors",
        "pretrained-1.safetensors",
    ]
    assert not any((tmp_path / "running").iterdir())
    kept = (tmp_path / "pretrained-0.safetensors").read_bytes()
    again = study(data, tmp_path, own, variants=["convolution", "last-stage"], pretraining=pretraining)
    assert results(again) == results(found)
    assert (tmp_path / "pretrained-0.safetensors").read_bytes() == kept
    with pytest.raises(InputError, match="pretraining was {.*}, is None"):
        study(data, tmp_path, own, variants=["convolution"])
    (tmp_path / "other").mkdir()
    del found.data["pretraining"]
    save_study(tmp_path / "other" / RESULTS, found)
    with pytest.raises(InputError, match="pretraining was None, is"):
        study(data, tmp_path / "other", own, variants=["convolution"], pretraining=pretraining)


def test_what_cannot_start_from_it_is_refused_before_training(data, tmp_path):
    with pytest.raises(InputError, match="variants: equal-convolution: it differs from the trained network in more"):
        study(data, tmp_path, variants=["equal-convolution"], pretraining=Pretraining(epochs=1, learning_rate=0.1))
    with pytest.raises(InputError, match="epochs must be"):
        study(data, tmp_path, variants=["acmix"], pretraining=Pretraining(epochs=0, learning_rate=0.1))
    assert not any(tmp_path.iterdir())
