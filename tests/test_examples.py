"""Every example that needs no other packages than the development environment has."""

import copy
import importlib
import shlex
import types

import pytest
import timm
import torch
from torch import nn

import acmix
from acmix.tasks.classification import demonstration
from acmix.tasks.loop import recipes
from tests.commands import call
from tests.examples import EXAMPLES, load_example

NETWORK = """
backbone:
  - [-1, 1, nn.Conv2d, [3, 8, 3, 2, 1]]
  - [-1, 2, ACmixLayer, [8, 8]]
  - [-1, 1, nn.Conv2d, [8, 16, 3, 2, 1]]
head:
  - [-1, 1, nn.Conv2d, [16, 16, 3, 1, 1]]
"""
# A module that looks the names of a YAML file up in itself.
PARSER = """
import yaml
from torch import nn

def parse_model(text):
    rows = yaml.safe_load(text)
    layers = []
    for _, repeats, name, arguments in rows["backbone"] + rows["head"]:
        kind = getattr(nn, name[3:]) if name.startswith("nn.") else globals()[name]
        layers += [kind(*arguments) for _ in range(repeats)]
    return nn.Sequential(*layers)
"""


def test_a_yaml_parser_learns_the_layer_and_its_network_is_operated_on():
    example = load_example("detectors")
    parser = types.ModuleType("parser")
    exec(PARSER, vars(parser))  # noqa: S102  a source of our own
    example.teach(parser)
    network = parser.parse_model(NETWORK)
    assert isinstance(network, nn.Sequential)
    assert [isinstance(layer, acmix.ACmix) for layer in network] == [False, True, True, False, False]
    image = torch.randn(1, 3, 32, 32)
    expected = network(image).shape
    report = example.replace_deep(network, image, 16 * 16)
    assert [layer.name for layer in report.replaced] == ["3", "4"]
    assert network(image).shape == expected


def test_the_demo_trains_as_the_example_does(capsys):
    code, settings, _ = call(capsys, *shlex.split(load_example("digits").TRAIN), "--print-config")
    assert (code, settings) == (0, recipes.as_yaml(demonstration.settings()))


def loaded(network, path):
    """Weights of another trainer's file, and what was said of them."""
    report = acmix.checkpoints.load_weights(network, acmix.checkpoints.load_state_dict(path))
    assert not report.kept
    assert not report.unused
    return report


@pytest.mark.parametrize("mixed", [False, True])
def test_torchvisions_reference_training(mixed):
    example = load_example("detection")
    model = example.detector("acmix_resnet14_small")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss = example.train_one_epoch(model, optimizer, [example.examples(2) for _ in range(3)], mixed)
    assert loss > 0
    operators = [module for module in model.modules() if isinstance(module, acmix.ACmix)]
    assert len(operators) == 4
    assert all(parameter.grad.any() for operator in operators for parameter in operator.parameters())
    (image, _), model = example.examples(1)[0], copy.deepcopy(model).eval()
    assert model([image])[0]["boxes"].shape[1] == 4
    fused = acmix.fuse(model.backbone)
    torch.testing.assert_close(fused(image[None]), model.backbone(image[None]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", ["on_our_encoder", "on_any_encoder"])
def test_segmentation_models_pytorch(make):
    example = load_example("segmentation")
    network = getattr(example, make)()
    assert sum(isinstance(module, acmix.ACmix) for module in network.modules()) > 5
    assert example.train(network, steps=2) < 1
    images = torch.rand(1, 3, 64, 64)
    expected = copy.deepcopy(network).eval()(images)
    # smp asks for the size of its input, which torch.fx cannot follow in all of its networks; in encoders it can.
    network.encoder = acmix.fuse(network.eval().encoder)
    # Its blocks call one ReLU twice, which no operator can take in.
    assert {layer.kind for layer in network.encoder.fusion_report.left} <= {"ReLU"}
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def test_networks_of_smp_are_saved_and_loaded(tmp_path):
    smp = importlib.import_module("segmentation_models_pytorch")
    network = load_example("segmentation").on_our_encoder().eval()
    network.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(smp.from_pretrained(tmp_path).eval()(images), network(images))


def test_timms_training_is_resumed_and_its_checkpoints_load(tmp_path):
    example = load_example("timm_training")
    model, average = example.train(tmp_path, epochs=3)
    images = torch.rand(2, 3, 64, 64)
    network = example.create().eval()
    loaded(network, tmp_path / "last.pth.tar")
    assert not torch.equal(average(images), model(images))
    assert torch.equal(network(images), average(images))
    timm_loads = timm.create_model(
        "acmix_resnet14_small", num_classes=3, checkpoint_path=str(tmp_path / "last.pth.tar")
    ).eval()
    assert torch.equal(timm_loads(images), average(images))
    # Nothing is left to train: what was resumed is what was saved.
    resumed, _ = example.train(tmp_path / "more", epochs=3, resume=tmp_path / "last.pth.tar")
    assert torch.equal(resumed(images), model(images))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*LeafSpec.*:FutureWarning")
def test_lightnings_checkpoints_load(tmp_path, precision):
    example = load_example("lightning_trainer")
    path = tmp_path / "classifier.ckpt"
    model = example.fit(path, precision=precision, accelerator="cpu", enable_progress_bar=False)
    network = timm.create_model("acmix_resnet14_small", num_classes=3).eval()
    assert loaded(network, path).prefix == "net."
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(images), model.eval().net(images))
    again = example.Classifier.load_from_checkpoint(path, weights_only=True).eval()
    assert torch.equal(again.net(images), network(images))


def test_the_tour_goes_from_pictures_to_an_explained_prediction(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = (EXAMPLES / "tour.py").read_text().replace("EPOCHS = 5", "EPOCHS = 1")
    exec(compile(source, "tour.py", "exec"), {"__name__": "tour"})  # noqa: S102
    assert "000-is-0.png is a" in capsys.readouterr().out
    assert (tmp_path / "tour/explained/index.html").is_file()
