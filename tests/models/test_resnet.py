"""ACmix-ResNet: the published sizes and logits, the options of the block, the small network."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import BlurPool2d
from timm.models import resnet as timm_resnet

from acmix import ACmix, InputError
from acmix.accounting import convolution_twin
from acmix.checkpoints import load_weights, to_published
from acmix.models import Bottleneck, create_model

DATA = Path(__file__).parents[1] / "data"


def operators(model):
    return [module for module in model.modules() if isinstance(module, ACmix)]


@pytest.mark.parametrize(
    ("name", "published"),
    [("acmix_resnet26", 10_487_816), ("acmix_resnet38", 14_410_896), ("acmix_resnet50", 18_333_976)],
)
def test_parameters_of_the_published_code(name, published):
    model = create_model(name, device="meta")
    # The published code also has a position bias of D elements, which cancels in the softmax.
    biases = sum(operator.position_weight.shape[0] for operator in operators(model))
    assert sum(parameter.numel() for parameter in model.parameters()) + biases == published
    buffers = {buffer_name for buffer_name, _ in model.named_buffers()}
    state = to_published(model.state_dict())
    assert sum(tensor.numel() for key, tensor in state.items() if key not in buffers) == published


def made_by_rule(name, shape):
    g = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        return np.exp(0.1 * g)
    if len(shape) <= 1:
        if name.endswith("weight"):
            return 1 + 0.1 * g
        return 0.5 + 0.1 * g if "rate" in name else 0.1 * g
    return g / np.sqrt(np.prod(shape[1:]))


def test_logits_of_the_published_resnet26():
    model = create_model("acmix_resnet26", dtype=torch.float64).eval()
    state = {
        name: torch.from_numpy(made_by_rule(name, tuple(tensor.shape))) if tensor.is_floating_point() else tensor
        for name, tensor in to_published(model.state_dict()).items()
    }
    load_weights(model, state)
    golden = np.load(DATA / "resnet26.npz", allow_pickle=False)
    with torch.inference_mode():
        logits = model(torch.from_numpy(golden["x"]))
    torch.testing.assert_close(logits, torch.from_numpy(golden["y"]), rtol=0, atol=1e-9)


def test_strides_and_dilations_reach_the_operators():
    def steps(**kwargs):
        model = create_model("acmix_resnet26", device="meta", **kwargs)
        return [(operator.stride[0], operator.dilation[0]) for operator in operators(model)]

    assert steps() == [(1, 1), (2, 1), (1, 1), (2, 1), (1, 1), (1, 1), (1, 1), (2, 1)]
    # As in timm, the first block of a stage has the dilation of the stage before.
    assert steps(output_stride=8) == [(1, 1), (2, 1), (1, 1), (1, 1), (1, 2), (1, 2), (1, 2), (1, 2)]


def test_block_arguments_reach_the_operators():
    arguments = {"heads": 8, "kernel_att": 5, "kernel_conv": 5, "backend": "reference"}
    model = create_model("acmix_resnet14_small", block_args=arguments)
    for operator in operators(model):
        assert {name: getattr(operator, name) for name in arguments} == arguments
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("first_dilation", [None, 1, 2])
def test_block_output(first_dilation):
    block = Bottleneck(64, 16, first_dilation=first_dilation, dilation=2, reduce_first=2, dtype=torch.float64)
    assert block.conv2.in_channels == 8
    assert block.conv2.out_channels == 16
    assert block.conv2.dilation[0] == (first_dilation or 2)
    assert block(torch.randn(1, 64, 9, 5, dtype=torch.float64)).shape == (1, 64, 9, 5)


def test_arguments_that_the_operator_cannot_honour_are_refused():
    with pytest.raises(ValueError, match=r"cardinality must be 1, .* got 32"):
        create_model("acmix_resnet26", cardinality=32, base_width=4, device="meta")
    with pytest.raises(ValueError, match=r"aa_layer must be None, .* got .*BlurPool2d"):
        create_model("acmix_resnet26", aa_layer=BlurPool2d, device="meta")
    with pytest.raises(ValueError, match=r"output_stride must be one of \(4, 8, 16, 32\), got 64"):
        create_model("acmix_resnet14_small", output_stride=64)


def test_small_network_keeps_small_images_large_enough():
    model = create_model("acmix_resnet14_small").eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    with torch.inference_mode():
        _, features = model.forward_intermediates(torch.randn(1, 3, 32, 32))
    assert [feature.shape[-1] for feature in features] == [16, 16, 8, 4, 2]
    assert [32 // info["reduction"] for info in model.feature_info] == [16, 16, 8, 4, 2]


@pytest.mark.parametrize(("output_stride", "sizes"), [(4, [8, 8]), (8, [4, 4]), (16, [4, 2]), (32, [4, 2])])
def test_output_stride_of_the_small_network(output_stride, sizes):
    model = create_model("acmix_resnet14_small", output_stride=output_stride).eval()
    with torch.inference_mode():
        _, features = model.forward_intermediates(torch.randn(1, 3, 32, 32), indices=[3, 4])
    assert [feature.shape[-1] for feature in features] == sizes


def test_a_step_lowers_the_loss():
    torch.manual_seed(0)
    model = create_model("acmix_resnet14_small")
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_projections_start_as_three_convolutions():
    operator = create_model("acmix_resnet26").layer4[0].conv2
    expected = (2 / operator.out_channels) ** 0.5
    for weight in operator.qkv.weight.chunk(3):
        assert abs(weight.std().item() / expected - 1) < 0.01


def test_with_bottlenecks_of_timm_it_is_the_network_with_convolutions():
    network = create_model("acmix_resnet14_small", block=timm_resnet.Bottleneck)
    twin = convolution_twin(create_model("acmix_resnet14_small"))
    shapes = [{key: tensor.shape for key, tensor in module.state_dict().items()} for module in (network, twin)]
    assert shapes[0] == shapes[1]


def test_stages_with_the_operator():
    def where(**options):
        model = create_model("acmix_resnet26", device="meta", **options)
        return [name for name, module in model.named_modules() if isinstance(module, ACmix)]

    assert where(acmix_stages=[4]) == ["layer4.0.conv2"]
    assert where(acmix_stages=(1, 2), block_args={"quiet_shifts": True}) == [
        *("layer1.0.conv2", "layer2.0.conv2", "layer2.1.conv2")
    ]
    assert where(acmix_stages=[]) == []
    assert where(acmix_stages=[1, 2, 3, 4]) == where()
    for wrong in ([0], [5], "4", 4, [[4]]):
        with pytest.raises(InputError, match="acmix_stages must be a list of stages, 1 to 4, got"):
            where(acmix_stages=wrong)


@pytest.mark.parametrize("stages", [[], [4], [1, 2, 3, 4]])
def test_a_seed_gives_stages_the_weights_of_whole_networks(stages):
    torch.manual_seed(0)
    placed = create_model("acmix_resnet14_small", acmix_stages=stages)
    torch.manual_seed(0)
    whole = create_model("acmix_resnet14_small", **({"block": timm_resnet.Bottleneck} if not stages else {}))
    if len(stages) != 1:
        assert all(torch.equal(value, whole.state_dict()[name]) for name, value in placed.state_dict().items())
    assert placed(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
