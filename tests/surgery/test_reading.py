"""What a network does with its layers: every way to read them but a call keeps them as they are."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

import acmix
from tests.surgery.test_fusion import trained


class Network(nn.Module):
    """A convolution and a norm behind it; `run` says what else there is."""

    def __init__(self, run):
        super().__init__()
        self.layer, self.norm, self.run = nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), run
        self.held = [self.layer, self.norm]

    def forward(self, x, optional=None, *, flag=False):
        return self.run(self, x, optional, flag)


def both(network, x):
    return network.norm(network.layer(x))


def kept(network, x):
    network.kept = network.layer(x)
    return network.norm(network.kept)


def kept_in_a_list(network, x):
    network.kept = [{"a": network.layer(x)}]
    return network.norm(network.kept[0]["a"])


def if_alone(network, y):
    return network.norm(y) + y


FOLDED = {
    "plainly": lambda n, x, *_: both(n, x),
    "through a list": lambda n, x, *_: n.held[1](n.held[0](x)),
    "reading sizes": lambda n, x, *_: both(n, x) * n.layer.kernel_size[0] / n.layer.out_channels,
    "of any type": lambda n, x, *_: n.norm(y) if isinstance(y := n.layer(x), torch.Tensor) else None,
    "with an argument": lambda n, x, optional, _: both(n, x) if optional is None else both(n, x) + optional,
}
LEFT = {
    "weight": lambda n, x, *_: functional.conv2d(x, n.layer.weight) + both(n, x),
    "own parameters": lambda n, x, *_: both(n, x) + sum(p.sum() for p in n.parameters()),
    "dictionary": lambda n, x, *_: both(n, x) + n.layer._parameters["weight"].sum(),
    "state": lambda n, x, *_: both(n, x) + n.norm.state_dict()["running_var"].sum(),
    "absent bias": lambda n, x, *_: both(n, x) * (2 if n.layer.bias is None else 3),
    "norm weight": lambda n, x, *_: both(n, x) * n.norm.weight[:, None, None],
    "statistics": lambda n, x, *_: both(n, x) * n.norm.running_var[:, None, None],
    "count": lambda n, x, *_: both(n, x) / n.norm.num_features,
    "attribute": lambda n, x, *_: both(n, x) * (2 if hasattr(n.norm, "running_mean") else 3),
    "keyword": lambda n, x, *_: n.norm(input=n.layer(x)),
    "forward": lambda n, x, *_: n.norm(n.layer.forward(x)) + n.norm(n.layer(x)),
    "function": lambda n, x, *_: functional.batch_norm(n.layer(x), n.norm.running_mean, n.norm.running_var),
    "twice": lambda n, x, *_: both(n, x) + both(n, 2 * x),
    "between": lambda n, x, *_: n.norm(2 * n.layer(x)),
    "output": lambda n, x, *_: if_alone(n, n.layer(x)),
    "kept": lambda n, x, *_: kept(n, x),
    "kept in a list": lambda n, x, *_: kept_in_a_list(n, x),
    "optional": lambda n, x, optional, _: if_alone(n, n.layer(x)) if optional is None else both(n, x),
    "given": lambda n, x, optional, _: both(n, x) if optional is None else if_alone(n, n.layer(x)),
    "type": lambda n, x, *_: if_alone(n, n.layer(x)) if isinstance(x, torch.Tensor) else both(n, x),
    "type within": lambda n, x, *_: if_alone(n, y) if torch.is_tensor(y := n.layer(x)) else both(n, x),
    "has": lambda n, x, *_: if_alone(n, n.layer(x)) if not hasattr(x, "tensors") else both(n, x),
}


def kept_values(network):
    leaves = pytree.tree_leaves(getattr(network, "kept", ()))
    return sum((leaf.sum() for leaf in leaves), torch.zeros(()))


def outputs(network):
    x = torch.linspace(-1, 1, 400, dtype=torch.float64).view(1, 4, 10, 10)
    for arguments in ((x,), (x, torch.ones((), dtype=torch.float64))):
        yield network(*arguments)
        yield kept_values(network)


@pytest.mark.parametrize("run", FOLDED)
def test_calls_alone_are_folded(run):
    network = trained(Network(FOLDED[run]).double())
    fused = acmix.fuse(network)
    assert isinstance(fused.norm, nn.Identity), fused.fusion_report
    for found, expected in zip(outputs(fused), outputs(network), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:the batch norms of Network stay")
@pytest.mark.parametrize("run", LEFT)
def test_readers_keep_what_they_read(run):
    network = trained(Network(LEFT[run]).double())
    fused = acmix.fuse(network)
    assert isinstance(fused.norm, nn.BatchNorm2d)
    assert not hasattr(network, "kept")
    for found, expected in zip(outputs(fused), outputs(network), strict=True):
        assert torch.equal(found, expected)
