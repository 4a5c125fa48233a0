"""Copies of networks with hooks, modules that become others, and who holds what."""

import functools
import threading

import torch
from torch import nn
from torch.nn.utils import prune

from acmix.surgery.identity import become, copy_network, exchange, tied


class Recorder:
    """Cannot be copied, as many loggers cannot."""

    def __init__(self):
        self.lock, self.seen = threading.Lock(), []

    def note(self, module, inputs, output):  # noqa: ARG002
        self.seen.append(module)


class Watching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.gain = nn.Linear(3, 3), nn.Linear(3, 3)
        self.layer.register_forward_hook(self.amplify)
        self.layer.register_forward_hook(functools.partial(amplify, self.gain))

    def amplify(self, _, inputs, output):  # noqa: ARG002
        return self.gain(output)

    def forward(self, x):
        return self.layer(x)


def amplify(gain, _, inputs, output):  # noqa: ARG001
    return gain(output)


def test_hooks_of_a_copy_are_bound_to_the_copy():
    network = Watching()
    copied = copy_network(network)
    x = torch.randn(2, 3)
    expected = network(x)
    torch.testing.assert_close(copied(x), expected)
    nn.init.zeros_(network.gain.weight)
    torch.testing.assert_close(copied(x), expected)
    nn.init.zeros_(copied.gain.weight)
    assert not torch.allclose(copied(x), expected)


def test_what_is_no_part_of_the_network_is_shared():
    network, recorder, seen = nn.Sequential(nn.Linear(3, 3)), Recorder(), []
    network[0].register_forward_hook(recorder.note)
    network[0].register_forward_hook(lambda module, *_: seen.append(module))
    copied = copy_network(network)
    copied(torch.randn(2, 3))
    assert recorder.seen == seen == [copied[0]]


def test_tensors_with_a_history_are_copied_without():
    network = nn.Sequential(nn.Linear(3, 3))
    prune.l1_unstructured(network[0], "weight", 0.5)
    network(torch.randn(2, 3)).sum().backward()
    x = torch.randn(2, 3)
    torch.testing.assert_close(copy_network(network)(x), network(x))


def test_a_module_becomes_another_for_everyone():
    layer = nn.Linear(3, 3)
    network, method = nn.Sequential(layer, layer), layer.register_forward_hook
    become(layer, nn.ReLU())
    assert isinstance(network[0], nn.ReLU)
    assert network[1] is network[0] is method.__self__
    assert list(layer.parameters()) == []
    assert torch.equal(network(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


def test_exchange_keeps_the_order_and_reaches_everything():
    first, second, other = nn.Linear(3, 3), nn.ReLU(), nn.Tanh()
    network = nn.Sequential(first, second, first)
    network.kept = {"a": [first, (second, 1)]}
    exchange(network, {first: other})
    assert [*network] == [other, second, other]
    assert network.kept == {"a": [other, (second, 1)]}


def test_tied():
    network = nn.ModuleDict({name: nn.BatchNorm2d(3) for name in "abc"})
    network["again"] = network["a"]
    assert tied(network) == {}
    network["b"].weight = network["a"].weight
    assert tied(network) == {network["a"]: "b", network["b"]: "a"}
    network["c"].running_mean = network["b"].running_mean
    assert tied(network)[network["c"]] == "b"
