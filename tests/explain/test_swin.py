"""Looking into ACmix-Swin: attention in input coordinates, shares of both paths, kernels, evidence, backends."""

import pytest
import torch

from acmix import explain
from acmix.models import WindowACmix, create_model
from acmix.models.patches import padded
from acmix.models.swin import _attend, _roll
from acmix.tasks.loop.training import _rates


def network(**settings):
    torch.manual_seed(0)
    small = {"depths": (2, 1), "num_heads": (1, 2), "embed_dim": 32, "num_classes": 3, "drop_path_rate": 0.0}
    model = create_model("acmix_swin_tiny", **{**small, **settings}).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def images(*sizes):
    return torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("pixel", [(0, 0), (30, 41), (55, 55)])
def test_attention_is_that_of_the_shifted_window_in_input_coordinates(pixel):
    model = network()
    arguments = explain.layer_arguments(model, images(56, 56))
    found = explain.pixel_attention(model, images(56, 56), pixel)
    assert [part.layer for part in found] == list(arguments)
    for part in found:
        layer = model.get_submodule(part.layer)
        x, shift = arguments[part.layer]
        cells = 14 if part.layer.startswith("layers.0") else 7
        assert part.cell == tuple(place * cells // 56 for place in pixel)
        torch.testing.assert_close(part.weights.sum((2, 3)), torch.ones_like(part.weights[..., 0, 0]))
        projections = layer.qkv(padded(_roll(x, shift, -1), layer.window_size, 1))
        mask = layer._mask(projections, shift)
        bias = layer._get_rel_pos_bias()[0]
        attended = _roll(_attend(projections, bias, mask, layer.window_size, layer.num_heads, 0.0), shift, 1)
        value = layer.qkv(x).unflatten(3, (3, layer.num_heads, -1))[:, :, :, 2]
        weighed = torch.einsum("bnyx,byxnd->bnd", part.weights, value).flatten(1)
        torch.testing.assert_close(weighed, attended[:, part.cell[0], part.cell[1]])
    assert any(any(arguments[part.layer][1]) for part in found)


def test_a_window_beyond_the_map_leaves_weight_there():
    (part, *_) = explain.pixel_attention(network(), images(40, 40), (39, 39))
    assert part.weights.shape == (2, 1, 10, 10)
    assert (part.weights.sum((2, 3)) < 1).all()


def test_shares_are_norms_of_both_paths():
    model = network()
    arguments = explain.layer_arguments(model, images(40, 52))
    shares = explain.path_shares(model, [images(40, 52)])
    for share in shares:
        paths = model.get_submodule(share.layer).paths(*arguments[share.layer])
        norms = [path.square().mean().sqrt().item() for path in paths]
        assert [share.attention, share.convolution] == pytest.approx(norms)


def test_rates_and_kernels_are_those_of_the_layers():
    model = create_model("acmix_swin_tiny", depths=(1, 1), num_heads=(1, 2), embed_dim=32)
    assert [(rate.attention, rate.convolution) for rate in explain.rates(model)] == [(0.5, 0.5)] * 2
    assert [(change.distance, change.shift_energy) for change in explain.kernel_changes(model)] == [(0, 1)] * 2
    rows = _rates({"epoch": 3}, model, model.state_dict())
    assert [row["layer"] for row in rows] == ["layers.0.blocks.0.attn", "layers.1.blocks.0.attn"]


def test_evidence_has_the_cells_of_the_layer():
    pytest.importorskip("captum")
    model, seen = network(), {}
    layer = model.layers[0].blocks[1].attn
    images_, classes = images(40, 52), torch.tensor([0, 2])

    def keep(_, __, output):
        output.retain_grad()
        seen["output"] = output

    with layer.register_forward_hook(keep):
        model(images_).gather(1, classes[:, None]).sum().backward()
    weights = seen["output"].grad.mean((1, 2), keepdim=True)
    expected = (weights * seen["output"]).sum(3)
    torch.testing.assert_close(explain.class_evidence(model, images_, classes, layer), expected.detach())


def test_backends_are_compared():
    answers = explain.compare_backends(network().float(), images(40, 52).float(), seconds=0.01)
    assert {"portable", "reference"} <= {answer.backend for answer in answers}
    assert all(answer.error < 1e-3 for answer in answers)


def test_a_backend_is_that_of_the_convolution_path():
    model = network(backend="portable")
    (operator, *_) = (module for module in model.modules() if isinstance(module, WindowACmix))
    operator.backend = "reference"
    assert operator.convolution.backend == "reference"
