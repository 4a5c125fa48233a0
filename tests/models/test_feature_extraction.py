"""torch.fx takes our networks and changed ones: whole graphs, and the extractors of torchvision and timm on them."""

import pickle

import pytest
import timm
import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import acmix
from tests.surgery.test_fusion import trained

# The deeper ones have no other layers.
NAMES = ["acmix_resnet14_small", "acmix_resnet26"]


def small():
    return trained(acmix.create_model("acmix_resnet14_small", num_classes=3))


def someones():
    network = torchvision.models.resnet18(num_classes=3)
    acmix.replace_convolutions(network)
    return trained(network)


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_computes_what_its_network_does(name):
    network = acmix.create_model(name, num_classes=3).eval()
    images = torch.randn(1, 3, 64, 48)
    with torch.inference_mode():
        assert torch.equal(fx.symbolic_trace(network)(images), network(images))
        (only,) = create_feature_extractor(network, [get_graph_node_names(network)[1][-1]])(images).values()
        assert torch.equal(only, network(images))


@pytest.mark.parametrize("make", [small, someones])
@pytest.mark.parametrize("change", [lambda network: network, acmix.fuse], ids=["as it is", "fused"])
def test_features_of_torchvision(make, change):
    network = change(make())
    stages = ["layer1", "layer2", "layer4"]
    names, _ = get_graph_node_names(network)
    assert {name.split(".")[0] for name in names} >= {*stages, "fc"}
    seen = {}
    for stage in stages:
        network.get_submodule(stage).register_forward_hook(lambda *call, stage=stage: seen.update({stage: call[-1]}))
    extractor = pickle.loads(pickle.dumps(create_feature_extractor(network, stages)))  # noqa: S301
    images = torch.randn(2, 3, 40, 33)
    network(images)
    for stage, found in extractor(images).items():
        assert torch.equal(found, seen[stage])


@pytest.mark.parametrize("name", NAMES)
def test_features_of_timm(name):
    networks = []
    for kind in ("hook", "fx"):
        torch.manual_seed(0)
        networks.append(timm.create_model(name, features_only=True, feature_cls=kind, zero_init_last=False).eval())
    images = torch.randn(1, 3, 64, 48)
    for ours, theirs in zip(*(network(images) for network in networks), strict=True):
        assert torch.equal(ours, theirs)


def test_every_parameter_learns_through_an_extractor():
    network = acmix.create_model("acmix_resnet14_small", num_classes=3, zero_init_last=False)
    extractor = create_feature_extractor(network, ["fc"])
    extractor(torch.randn(2, 3, 32, 32))["fc"].square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert {*map(id, extractor.parameters())} == {*map(id, network.parameters())}


def test_a_graph_is_traced_again():
    graph = fx.symbolic_trace(nn.Sequential(acmix.ACmix(3, 8), nn.ReLU()))
    images = torch.randn(1, 3, 9, 5)
    torch.testing.assert_close(fx.symbolic_trace(graph)(images), graph(images))
