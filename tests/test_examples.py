"""The recipe for detectors, against a parser of the kind that Ultralytics has."""

import shlex
import types

import torch
from torch import nn

import acmix
from acmix.tasks.classification import demonstration
from acmix.tasks.loop import recipes
from tests.commands import call
from tests.examples import load_example

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
