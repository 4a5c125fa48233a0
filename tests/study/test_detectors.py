"""A study of detectors: the kind is told by the data, and average precisions stand in the place of accuracies."""

from dataclasses import replace

import pytest

from acmix import InputError
from acmix.study import RESULTS, Pretraining, as_markdown, differences, load_study, run_study, time_study
from acmix.study.kinds import KINDS, kind_of
from acmix.study.results import Trained
from acmix.study.variants import VARIANTS
from acmix.tasks.detection.networks import cost as cost_of_trained
from tests import drawn_shapes
from tests.commands import call
from tests.tasks.detection.conftest import SETTINGS

OWN = replace(SETTINGS, epochs=1, pyramid_levels=3)
KIND = KINDS["detection"]


@pytest.fixture(scope="session")
def sizes(tmp_path_factory):
    """Pictures in which COCO counts objects as small, medium and large."""
    folder = tmp_path_factory.mktemp("shapes")
    pictures = drawn_shapes.draw(8, side=300, most=3, radii=(0.03, 0.4))
    return str(drawn_shapes.write_coco(folder, pictures, share=0.5))


def study(data, output, settings=OWN, **options):
    options = {"variants": ["convolution", "last-stage"], "seeds": 2, "workers": 0, "seconds": 0.01} | options
    return run_study(data, settings, output, **options)


def test_a_study_of_detectors_is_whole_and_continues(sizes, tmp_path):
    found = study(sizes, tmp_path)
    assert found.task == "detection"
    assert found.data["input_size"] == [3, 32, 32]
    assert [(item.variant, item.seed) for item in found.trainings] == [
        *(("convolution", 0), ("last-stage", 0), ("convolution", 1), ("last-stage", 1))
    ]
    assert [score.title for score in found.scores] == ["AP", "AP50", "AP small", "AP medium", "AP large"]
    for item in found.trainings:
        assert set(item.scores) == {"val_map_50", "val_map_small", "val_map_medium", "val_map_large"}
        assert len(item.curve) == 1
        assert item.curve[-1] == item.accuracy
        assert len(item.rates) == (item.variant == "last-stage")
    assert load_study(tmp_path / RESULTS) == found
    assert all(item.training.fastest > 0 for item in found.variants.values())
    more = study(sizes, tmp_path, seeds=3, variants=["acmix"])
    assert [(item.variant, item.seed) for item in more.trainings[4:]] == [("acmix", 0), ("acmix", 1), ("acmix", 2)]
    assert more.trainings[:4] == found.trainings
    assert time_study(tmp_path / RESULTS, seconds=0.01).trainings == more.trainings
    with pytest.raises(InputError, match="holds a study under other settings: epochs was 1, is 2"):
        study(sizes, tmp_path, replace(OWN, epochs=2))


def test_detectors_start_from_one_that_was_trained(sizes, tmp_path):
    found = study(sizes, tmp_path, pretraining=Pretraining(epochs=1, learning_rate=0.01))
    assert (tmp_path / "pretrained-1.safetensors").exists()
    assert {name for item in found.trainings for name in item.scores} > {"val_map_50"}
    with pytest.raises(InputError, match="equal-convolution: it differs from the trained network in more"):
        study(sizes, tmp_path, variants=["equal-convolution"], pretraining=Pretraining(epochs=1, learning_rate=0.01))


def test_a_study_is_of_one_kind(sizes, tmp_path, made_up):
    from acmix.study import save_study

    (tmp_path / "study").mkdir()
    save_study(tmp_path / "study" / RESULTS, made_up)
    with pytest.raises(InputError, match="holds a study of classification, this is detection; choose another folder"):
        study(sizes, tmp_path / "study")
    made_up.task = "segmentation"
    save_study(tmp_path / "study" / RESULTS, made_up)
    with pytest.raises(InputError, match="task is 'segmentation', this acmix knows studies of classification"):
        load_study(tmp_path / "study" / RESULTS)


def test_what_makes_one_network_is_no_setting_of_a_study(sizes, tmp_path):
    with pytest.raises(InputError, match="acmix_stages makes one network of a study; leave it out, and name last"):
        study(sizes, tmp_path / "study", replace(OWN, acmix_stages=4))
    with pytest.raises(InputError, match="model must be an ACmix network"):
        study(sizes, tmp_path / "study", replace(OWN, backbone="resnet18"), variants=["acmix"])
    assert not (tmp_path / "study" / RESULTS).exists()


def test_kinds_are_told_by_data(sizes, tmp_path):
    assert kind_of("digits") is KINDS["classification"]
    assert kind_of(sizes) is KIND
    drawn_shapes.write_masks(tmp_path / "masks", drawn_shapes.draw(4, side=32))
    with pytest.raises(InputError, match="is of segmentation; a study compares networks of classification and"):
        kind_of(str(tmp_path / "masks"))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("equal-attention", "block-a-stage")])
def test_every_network_of_a_study_is_a_detector(name):
    if name == "equal-block-a-stage":
        pytest.skip("its stages have one block each")
    shape = KIND.shape(OWN, 3)
    network = VARIANTS[name].build(shape)
    assert network.backbone.name == OWN.backbone
    learned = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert VARIANTS[name].cost(shape, (3, 32, 32)).parameters == learned


def test_placements_of_a_backbone():
    shape = KIND.shape(replace(OWN, backbone="acmix_resnet26", pyramid_levels=4), 3)

    def where(name):
        network = VARIANTS[name].build(shape)
        return [place for place, module in network.named_modules() if type(module).__name__ == "ACmix"]

    fewer = KIND.shape(replace(OWN, pyramid_levels=2), 3)
    with pytest.raises(InputError, match="acmix_stages cannot have 4: the pyramid does not use that stage of 'acmix_r"):
        VARIANTS["last-stage"].build(fewer)
    body = "detector.backbone.body"
    assert where("last-stage") == [f"{body}.layer4.0.conv2"]
    assert where("block-a-stage") == [
        *(f"{body}.{place}.conv2" for place in ("layer1.0", "layer2.1", "layer3.3", "layer4.0"))
    ]


def test_costs_are_those_of_a_trained_detector(trained):
    own = trained("retinanet").load()
    counted = VARIANTS["acmix"].cost(KIND.shape(SETTINGS, 3), (3, 32, 32))
    assert counted.multiply_adds == cost_of_trained(own).network.total.multiply_adds
    assert counted.parameters == sum(parameter.numel() for parameter in own.model.parameters())


def of_detectors(made_up):
    made_up.task = "detection"
    made_up.settings |= {"model": "retinanet", "backbone": "acmix_resnet14_small"}
    others = {"val_map_50": 0.9, "val_map_large": 0.5}
    made_up.trainings = [
        replace(item, scores=others if item.seed < 7 else others | {"val_map_small": 0.1}) for item in made_up.trainings
    ]
    return made_up


def test_the_page_names_what_was_measured(made_up):
    found = of_detectors(made_up)
    # That of small objects is not of all trainings.
    assert [score.title for score in found.scores] == ["AP", "AP50", "AP large"]
    page = as_markdown(found)
    assert "accuracy" not in page
    assert "Shape of `retinanet on acmix_resnet14_small`" in page
    assert "AP is that of the last epoch" in page
    assert "Times of backbone, pyramid and heads: batch 10" in page
    assert "| network | AP, % | AP50, % | AP large, % | training loss |" in page
    assert "| ACmix, learned rates | 96.17 ± 3.13 | 90.00 ± 0.00 | 50.00 ± 0.00 | 0.500 |" in page
    assert "| AP | ACmix, learned rates | 3x3 convolutions | +4.83 ± 0.72 | 0.001 | 0.002 | - |" in page
    assert "| AP large | ACmix, learned rates | 3x3 convolutions | +0.00 ± 0.00 | - | - | - |" in page
    assert "corrected for all 9 comparisons" in page
    assert "Highest mean AP: " in page
    assert "3x3 convolutions, AP +4.83 ± 0.72" in page
    assert {item.score for item in differences(found)} == {"AP", "AP50", "AP large"}


def test_a_study_of_an_older_version_is_one_of_classifiers(made_up):
    item = made_up.trainings[0]
    assert Trained(*(getattr(item, name) for name in list(vars(item))[:7])).scores == {}
    assert [score.title for score in made_up.scores] == ["accuracy"]


def test_the_command_finds_the_kind(sizes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = ["--pyramid-channels", "8", "--pyramid-levels", "3", "--head-convolutions", "1", "--image-size", "32"]
    command = ["study", "run", sizes, "--variants", "convolution,acmix", "--seeds", "2", "--epochs", "1", *own]
    code, out, err = call(capsys, *command, "--seconds", "0.01", "--workers", "0", "--output", "found")
    assert (code, err) == (0, "")
    assert out.count("AP  ") == 4
    assert "Shape of `retinanet on acmix_resnet14_small`" in out
    assert load_study(tmp_path / "found" / RESULTS).settings["pyramid_channels"] == 8
    code, _, err = call(capsys, *command, "--label-smoothing", "0.1")
    assert (code, err) == (
        2,
        "acmix study run: error: --label-smoothing is no setting of a training on such data; leave it out\n",
    )
