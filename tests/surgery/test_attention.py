"""ACmix in the place of timm's window attention: outputs kept, what is left and why, what is refused."""

import copy

import pytest
import timm
import torch
from torch import nn

import acmix
from acmix.models import WindowACmix

SMALL = {"depths": (1, 2), "num_heads": (1, 2), "embed_dim": 16, "num_classes": 3, "img_size": 64}


def trained(**settings):
    torch.manual_seed(0)
    network = timm.create_model("swin_tiny_patch4_window7_224", **{**SMALL, **settings}).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def operators(network):
    return {name: module for name, module in network.named_modules() if isinstance(module, WindowACmix)}


def test_a_warm_start_keeps_the_outputs():
    network = trained().double()
    expected, weights = network(images()), {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = acmix.replace_attention(network, warm_start=True)
    assert str(report) == "3 of 3 window attentions replaced"
    torch.testing.assert_close(network(images()), expected, rtol=1e-12, atol=1e-12)
    for name, tensor in weights.items():
        assert torch.equal(network.state_dict()[name], tensor), name
    network.train()(images()).square().sum().backward()
    assert all(operator.rate_convolution.grad.abs() > 0 for operator in operators(network).values())


def test_what_was_replaced_is_reported():
    network = trained()
    before = [sum(parameter.numel() for parameter in block.attn.parameters()) for block in network.layers[1].blocks]
    report = acmix.replace_attention(network, select="layers.1.*")
    assert list(operators(network)) == ["layers.1.blocks.0.attn", "layers.1.blocks.1.attn"]
    assert [(layer.name, layer.reason) for layer in report.left] == [("layers.0.blocks.0.attn", "not selected")]
    for layer, number in zip(report.replaced, before, strict=True):
        operator = network.get_submodule(layer.name)
        assert layer.parameters == (number, sum(parameter.numel() for parameter in operator.parameters()))
        assert (layer.heads, layer.attention) == (2, "window 7 x 7, 32 channels")
        assert operator.rate_attention == operator.rate_convolution == 0.5
    assert report.to_dict()["layers"][0]["replaced"] is False
    again = acmix.replace_attention(network)
    assert [layer.name for layer in again.layers] == ["layers.0.blocks.0.attn"]


def test_device_dtype_mode_and_frozen_weights_are_kept():
    network = trained().to(torch.bfloat16).train().requires_grad_(False)
    acmix.replace_attention(network)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())


def hooked(network):
    network.layers[0].blocks[0].attn.register_forward_hook(lambda *_: None)


def patched(network):
    block = network.layers[0].blocks[0]
    block.forward = block.forward


def derived(network):
    network.layers[0].blocks[0].__class__ = type("Own", (type(network.layers[0].blocks[0]),), {})


def shared(network):
    network.layers[1].blocks[1].attn = network.layers[1].blocks[0].attn


@pytest.mark.parametrize(
    ("change", "reason", "left"),
    [
        (hooked, "has forward hooks", 1),
        (patched, "its block has a forward of its own", 1),
        (derived, "its block is a Own, not timm's SwinTransformerBlock itself", 1),
        (shared, "the attention of several blocks, layers.1.blocks.0, layers.1.blocks.1", 2),
    ],
)
def test_what_may_not_be_replaced_is_left(change, reason, left):
    network = trained()
    change(network)
    report = acmix.replace_attention(network, warm_start=True)
    assert [layer.reason for layer in report.left] == [reason] * left
    assert len(report.replaced) == 3 - left == len(operators(network))


def test_heads_of_another_size_are_left():
    report = acmix.replace_attention(trained(head_dim=4))
    assert [layer.reason for layer in report.left][:1] == ["its heads hold 4 channels, the map 16"]
    assert not report.replaced


def test_hooks_of_blocks_and_other_references_follow():
    network, seen = trained(), []
    network.layers[0].blocks[0].register_forward_hook(lambda *_: seen.append(1))
    network.kept = [network.layers[0].blocks[0].attn]
    acmix.replace_attention(network)
    network(images().float())
    assert seen == [1]
    assert network.kept[0] is network.layers[0].blocks[0].attn


def test_a_copy_is_left_alone():
    network = trained()
    other = copy.deepcopy(network)
    acmix.replace_attention(network)
    assert not operators(other)
    assert len(other.state_dict()) < len(network.state_dict())


def test_wrong_arguments_are_refused():
    network = trained()
    with pytest.raises(ValueError, match="select must name window attention of the network, got 'layer4'; it has"):
        acmix.replace_attention(network, select="layer4")
    with pytest.raises(ValueError, match="kernel_conv must be odd"):
        acmix.replace_attention(network, kernel_conv=2)
    with pytest.raises(ValueError, match="backend must be one of"):
        acmix.replace_attention(network, backend="fast")
    with pytest.raises(ValueError, match="network must hold window attention .*, Linear has none"):
        acmix.replace_attention(nn.Linear(2, 3))
    assert not operators(network)


def test_a_predicate_that_raises_leaves_the_network_as_it_was():
    network = trained()
    before = [type(module) for module in network.modules()]

    def choose(name, _):
        if name.startswith("layers.1"):
            raise KeyError(name)
        return True

    with pytest.raises(KeyError, match="layers.1"):
        acmix.replace_attention(network, select=choose)
    assert [type(module) for module in network.modules()] == before
