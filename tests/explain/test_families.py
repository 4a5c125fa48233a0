"""Looking into ACmix-PVT and ACmix-SAN: attention in input coordinates, shares of both paths, evidence, backends."""

import pytest
import torch

from acmix import explain
from acmix.models import create_model
from acmix.models.san import _windows
from acmix.ops.geometry import reflect, window_offsets

SMALL = {
    "acmix_pvt_tiny": {
        "channels": (16, 32),
        "depths": (1, 2),
        "num_heads": (2, 4),
        "mlp_ratios": (2, 2),
        "ratios": (3, 1),
    },
    "acmix_san10": {"channels": (32, 64), "depths": (1, 2), "kernels": (3, 7)},
}
SIZE = (40, 52)


def network(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **SMALL[name]).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def images():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def look(name, pixel):
    model = network(name)
    arguments = explain.layer_arguments(model, images())
    found = explain.pixel_attention(model, images(), pixel)
    assert [part.layer for part in found] == list(arguments)
    for part in found:
        cells = part.weights.shape[2:]
        assert part.cell == tuple(
            (2 * at + 1) * count // (2 * size) for at, count, size in zip(pixel, cells, SIZE, strict=True)
        )
    return model, arguments, found


@pytest.mark.parametrize("pixel", [(0, 0), (30, 41), (39, 51)])
def test_attention_of_a_pvt_is_that_of_reduced_keys_on_their_cells(pixel):
    model, arguments, found = look("acmix_pvt_tiny", pixel)
    for part in found:
        layer, (x, size) = model.get_submodule(part.layer), arguments[part.layer]
        query, keys = layer._project(x, size)
        attended = layer.alone("attention", x, size)[:, layer.tokens + part.cell[0] * size[1] + part.cell[1]]
        value = keys.unflatten(2, (2, layer.heads, -1))[:, :, 1]
        # Cells of one key have equal shares of its weight: their sum times the value of the key.
        of_cells = layer._cells(query, keys, size)[:, 2 * layer.heads :].permute(0, 1, 3, 4, 2)
        weighed = torch.einsum("bnyx,bnyxd->bnd", part.weights, of_cells)
        beside = 1 - part.weights.sum((2, 3))
        if layer.tokens:
            assert (beside > 0).all()
            weighed = weighed + beside[..., None] * value[:, 0]
        else:
            torch.testing.assert_close(beside, torch.zeros_like(beside))
        torch.testing.assert_close(layer.proj(weighed.flatten(1)), attended)
    assert found[0].weights[0, 0].unique().numel() <= 4 * 5
    assert model.get_submodule(found[-1].layer).tokens == 1


@pytest.mark.parametrize("pixel", [(0, 0), (30, 41), (39, 51)])
def test_attention_of_a_san_is_shares_of_its_weights(pixel):
    model, arguments, found = look("acmix_san10", pixel)
    for part in found:
        layer, (x,) = model.get_submodule(part.layer), arguments[part.layer]
        torch.testing.assert_close(part.weights.sum((2, 3)), torch.ones_like(part.weights[..., 0, 0]))
        query, key, value = layer._project(x)
        weights = layer._weights(query, key)[..., part.cell[0], part.cell[1]]
        windows = _windows(value, layer.kernel)[..., part.cell[0], part.cell[1]].unflatten(1, (8, -1))
        attended = layer.alone("attention", x)[..., part.cell[0], part.cell[1]]
        torch.testing.assert_close(torch.einsum("bsgj,bgj->bsg", windows, weights).flatten(1), attended)
        offsets = window_offsets(layer.kernel, 1, x.device)
        rows, columns = (reflect(at + offsets, size) for at, size in zip(part.cell, x.shape[2:], strict=True))
        expected = torch.zeros_like(part.weights)
        for number, (row, column) in enumerate(torch.cartesian_prod(rows, columns).tolist()):
            expected[:, :, row, column] += weights[..., number].abs()
        torch.testing.assert_close(part.weights, expected / expected.sum((2, 3), keepdim=True))


@pytest.mark.parametrize("name", SMALL)
def test_shares_are_norms_of_both_paths_which_add_up(name):
    model = network(name)
    arguments = explain.layer_arguments(model, images())
    for share in explain.path_shares(model, [images()]):
        layer, inputs = model.get_submodule(share.layer), arguments[share.layer]
        paths = layer.paths(*inputs)
        norms = [path.square().mean().sqrt().item() for path in paths]
        assert [share.attention, share.convolution] == pytest.approx(norms)
        torch.testing.assert_close(sum(paths), layer(*inputs))


@pytest.mark.parametrize("name", SMALL)
def test_backends_are_compared_and_rates_and_kernels_read(name):
    model = network(name).float()
    answers = explain.compare_backends(model, images().float(), seconds=0.01)
    assert {"portable", "reference"} <= {answer.backend for answer in answers if answer.refusal is None}
    assert all(answer.error < 1e-2 for answer in answers if answer.refusal is None)
    assert len(explain.rates(model)) == len(explain.kernel_changes(model)) == sum(SMALL[name]["depths"])


@pytest.mark.parametrize("name", SMALL)
def test_evidence_has_the_cells_of_the_layer(name):
    pytest.importorskip("captum")
    model, seen = network(name), {}
    first, layer = next(iter(explain.operators(model).items()))
    inputs = explain.layer_arguments(model, images())[first]

    def keep(_, __, output):
        output.retain_grad()
        seen["output"] = output

    with layer.register_forward_hook(keep):
        model(images()).gather(1, torch.tensor([[0], [2]])).sum().backward()
    output = seen["output"].movedim(layer.channel_axis, 1).flatten(2)
    weights = seen["output"].grad.movedim(layer.channel_axis, 1).flatten(2).mean(2, keepdim=True)
    expected = (weights * output).sum(1).unflatten(1, layer.map_size(*inputs))
    found = explain.class_evidence(model, images(), torch.tensor([0, 2]), layer)
    torch.testing.assert_close(found, expected.detach())


def test_evidence_behind_a_class_token_is_that_of_the_cells():
    pytest.importorskip("captum")
    model = network("acmix_pvt_tiny")
    *_, (name, layer) = explain.operators(model).items()
    size = layer.map_size(*explain.layer_arguments(model, images())[name])
    found = explain.class_evidence(model, images(), torch.tensor([0, 2]), layer)
    assert found.shape == (2, *size)
    assert found.abs().sum() > 0


def test_what_is_seen_is_said_of_each_family():
    words = {part.shown for name in SMALL for part in explain.pixel_attention(network(name), images(), (0, 0))}
    assert len(words) == len(SMALL)
    assert not any("mirror" in each for each in words)
