"""Networks with the operator pruned by torch-pruning: before it, after it, and itself."""

import copy
import importlib

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import prune

import acmix
import acmix.models
from tests.examples import load_example

pytestmark = pytest.mark.integrations


@pytest.fixture(scope="module")
def torch_pruning():
    return importlib.import_module("torch_pruning")


@pytest.fixture(scope="module")
def pruning():
    return importlib.import_module("acmix.integrations.torch_pruning")


@pytest.fixture(scope="module")
def graph(torch_pruning, pruning):
    """The dependencies of a network, from one call."""

    def build(network, image):
        return torch_pruning.DependencyGraph().build_dependency(network, image, **pruning.arguments(network))

    return build


class Subclass(acmix.ACmix):
    def __init__(self, channels_in, channels_out):
        super().__init__(channels_in, channels_out, heads=3)


def chain(operator):
    """What people have around an operator; every branch of the sum follows its neighbour."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.operator, self.beside = operator, nn.Conv2d(16, 24, 1)
            self.behind, self.after = nn.BatchNorm2d(24), nn.Conv2d(24, 8, 1)

        def forward(self, x):
            x = self.norm(self.before(x)).relu()
            return self.after(self.behind(self.operator(x) + self.beside(x)).relu())

    return Chain().eval()


@pytest.mark.parametrize("backend", ["auto", "portable", "reference"])
def test_what_is_pruned_before_an_operator_leaves_it_exact(torch_pruning, graph, backend):
    network, x = chain(acmix.ACmix(16, 24, heads=3, backend=backend, bias=True)), torch.randn(2, 3, 9, 10)
    zeroed = copy.deepcopy(network)
    with torch.no_grad():
        zeroed.norm.weight[[1, 4]] = 0
        zeroed.norm.bias[[1, 4]] = 0
    group = graph(network, x).get_pruning_group(network.before, torch_pruning.prune_conv_out_channels, [1, 4])
    group.prune()
    assert (network.operator.in_channels, network.operator.out_channels) == (14, 24)
    assert network.beside.weight.shape == (24, 14, 1, 1)
    torch.testing.assert_close(network(x), zeroed(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", [acmix.ACmix(16, 24, heads=3), Subclass(16, 24)])
def test_all_that_follows_an_operator_is_pruned_with_it(graph, operator):
    network, x = chain(copy.deepcopy(operator)), torch.randn(2, 3, 9, 10)
    found = graph(network, x)
    out = found.get_pruner_of_module(network.operator).prune_out_channels
    found.get_pruning_group(network.operator, out, [0, 8, 16]).prune()
    assert (network.operator.out_channels, network.behind.num_features) == (21, 21)
    assert network.beside.weight.shape[0] == network.after.in_channels == 21
    assert network(x).shape == (2, 8, 9, 10)
    # A fresh copy, pruned as the history says, is the same network.
    again = graph(chain(copy.deepcopy(operator)), x)
    again.load_pruning_history(found.pruning_history())
    again.model.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.model(x), network(x))


def test_heads_that_would_differ_are_refused(graph):
    network, x = chain(acmix.ACmix(16, 24, heads=3)), torch.randn(2, 3, 9, 10)
    found = graph(network, x)
    out = found.get_pruner_of_module(network.operator).prune_out_channels
    with pytest.raises(ValueError, match="the same channels of each of the 3 heads"):
        found.get_pruning_group(network.operator, out, [0, 1, 2]).prune()


def forward_of_its_own(network):
    network.operator.forward = lambda x: x


def weights_that_are_computed(network):
    nn.utils.parametrizations.weight_norm(network.operator.qkv)


def masks(network):
    prune.random_unstructured(network.operator, "dep_weight", 0.5)


def shared(network):
    network.beside = acmix.ACmix(16, 24, heads=3)
    network.beside.qkv.weight = network.operator.qkv.weight


@pytest.mark.parametrize("change", [forward_of_its_own, weights_that_are_computed, masks, shared])
def test_what_is_more_than_an_operator_is_refused(pruning, change):
    network = chain(acmix.ACmix(16, 24, heads=3))
    change(network)
    with pytest.raises(ValueError, match="^operator cannot be pruned: it"):
        pruning.arguments(network)


def test_fused_operators_are_refused(pruning):
    with pytest.raises(ValueError, match="prune before acmix.fuse"):
        pruning.arguments(acmix.fuse(chain(acmix.ACmix(16, 24, heads=3))))


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("features_only", [False, True])
def test_networks_of_timm_are_told(torch_pruning, pruning, at_once, features_only):
    network = timm.create_model("acmix_resnet14_small", features_only=features_only)
    operators = [layer for layer in network.modules() if isinstance(layer, acmix.ACmix)]
    x, heads = torch.randn(2, 3, 32, 32), [layer.heads for layer in operators]
    pruner = torch_pruning.pruner.MetaPruner(
        network,
        x,
        importance=torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        global_pruning=at_once,
        iterative_steps=2,
        root_module_types=[nn.Conv2d, acmix.ACmix],
        **pruning.arguments(network),
    )
    pruner.step()
    pruner.step()
    state = copy.deepcopy(network.train().state_dict())
    pruning.tell_timm(network, x)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    network.eval()
    assert [layer.heads for layer in operators] == heads
    shapes = [layer.qkv.weight.shape[:2] for layer in operators]
    assert shapes == [(3 * layer.out_channels, layer.in_channels) for layer in operators]
    assert all(shape < (3 * 128, 128) for shape in shapes)
    if features_only:
        assert [feature.shape[1] for feature in network(x)] == network.feature_info.channels()
        return
    features = network.forward_features(x)
    assert features.shape[1] == network.num_features == network.feature_info[-1]["num_chs"]
    network.reset_classifier(3)
    assert network(x).shape == (2, 3)


def test_the_example_trains_is_fused_and_exported(tmp_path):
    example, drawn = load_example("pruning"), load_example("drawn")
    network = timm.create_model("acmix_resnet14_small", num_classes=3, zero_init_last=False)
    images, labels = drawn.classified(24)
    before = sum(parameter.numel() for parameter in network.parameters())
    example.halve(network, images[:1])
    assert sum(parameter.numel() for parameter in network.parameters()) < before / 3
    first, last = (example.train(network, images, labels, steps) for steps in (1, 12))
    assert last < first / 2
    fused = acmix.fuse(network.eval())
    assert not fused.fusion_report.left
    torch.testing.assert_close(fused(images), network(images), rtol=1e-4, atol=1e-4)
    # Checks its answers against the network's.
    acmix.export.to_onnx(network, tmp_path / "pruned.onnx", input_size=(3, 64, 64))
