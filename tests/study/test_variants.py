import copy

import pytest
import timm
import torch
from timm.models.swin_transformer import WindowAttention

from acmix import ACmix, InputError
from acmix.accounting import convolution_twin
from acmix.models import PatchwiseACmix, PyramidACmix, WindowACmix
from acmix.study.variants import VARIANTS, OnePath, rates, usual_variants

MODEL, SIZE = "acmix_resnet14_small", (3, 32, 32)


# A study of every family has these networks.
OF_RESNET = [name for name in VARIANTS if name != "equal-attention"]


def built(name):
    return VARIANTS[name].build(MODEL, 10)


def operators(network):
    return [module for module in network.modules() if isinstance(module, ACmix)]


ALONE = ["attention", "convolution-path"]
BOTH = ["equal-rates", "acmix", "random-kernels"]
OF_SWIN = [*ALONE, *BOTH, "equal-attention"]
FAMILY = {MODEL: OF_RESNET, "acmix_swin_nano": OF_SWIN, "acmix_pvt_tiny": ALONE, "acmix_san10": ALONE}


@pytest.mark.parametrize(("model", "name"), [(model, name) for model, names in FAMILY.items() for name in names])
def test_every_network_learns(model, name):
    network = VARIANTS[name].build(model, 10)
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    without = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    fixed = [key for key, parameter in network.named_parameters() if not parameter.requires_grad]
    assert without == fixed
    learned = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert VARIANTS[name].cost(model, 10, SIZE).parameters == learned


def operators_and_inputs():
    image = torch.randn(2, 32, 9, 7, dtype=torch.float64)
    cells = image.permute(0, 2, 3, 1)
    yield ACmix(32, 16, stride=2), (image,)
    yield WindowACmix(WindowAttention(32, 2, window_size=(4, 4))), (cells, (2, 1))
    yield PyramidACmix(32, 2, ratio=2, tokens=1), (torch.cat((cells[:, :1, 0], cells.flatten(1, 2)), 1), (9, 7))
    yield PatchwiseACmix(32, 3), (image,)


@pytest.mark.parametrize("number", range(4))
def test_paths_add_up_to_the_operator(number):
    operator, inputs = [*operators_and_inputs()][number]
    operator.double().eval()
    parts = [OnePath(copy.deepcopy(operator), path)(*inputs) for path in ("attention", "convolution")]
    torch.testing.assert_close(0.5 * parts[0] + 0.5 * parts[1], operator(*inputs))


def test_attention_alone_in_a_swin_is_timms():
    ours = VARIANTS["attention"].build("acmix_swin_nano", 10).double().eval()
    settings = {"patch_size": 2, "window_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2)}
    theirs = timm.models.SwinTransformer(img_size=32, num_classes=10, drop_path_rate=0.0, **settings).double().eval()
    state = {name.replace(".operator.", "."): tensor for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(state)
    image = torch.randn(2, *SIZE, dtype=torch.float64)
    torch.testing.assert_close(ours(image), theirs(image))


def test_a_swin_alone_is_widened_to_as_many_multiply_adds():
    costs = {
        name: VARIANTS[name].cost("acmix_swin_nano", 10, SIZE) for name in ("attention", "equal-attention", "acmix")
    }
    assert costs["attention"].multiply_adds < costs["acmix"].multiply_adds
    assert costs["equal-attention"].multiply_adds == pytest.approx(costs["acmix"].multiply_adds, rel=0.01)


def test_usual_networks_of_a_family():
    probes = {"quiet-shifts", "no-positions", "window-3", "attention-window-3"}
    assert set(usual_variants(MODEL)) == set(OF_RESNET) - probes
    assert set(usual_variants("acmix_swin_nano")) == set(OF_SWIN)
    assert set(usual_variants("acmix_pvt_tiny")) == set(usual_variants("acmix_san10")) == {*ALONE, *BOTH}
    with pytest.raises(
        InputError, match="model must be an ACmix-Swin for this network of a study, got 'acmix_resnet14"
    ):
        VARIANTS["equal-attention"].build(MODEL, 2)


def test_a_seed_fixes_weights_however_the_network_is_looked_at():
    states = []
    for build in (lambda: timm.create_model(MODEL, num_classes=3), lambda: VARIANTS["acmix"].build(MODEL, 3)):
        torch.manual_seed(5)
        states.append(build().state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_costs():
    costs = {name: VARIANTS[name].cost(MODEL, 10, SIZE) for name in OF_RESNET}
    acmix, convolution = costs["acmix"], costs["convolution"]
    twin = convolution_twin(built("acmix"))
    assert convolution.parameters == sum(parameter.numel() for parameter in twin.parameters())
    assert abs(costs["equal-convolution"].parameters / acmix.parameters - 1) < 0.02
    # Both paths need the projections and the rest of the network.
    alone = costs["attention"].multiply_adds + costs["convolution-path"].multiply_adds
    assert acmix.multiply_adds < alone < 2 * acmix.multiply_adds
    assert costs["attention"].parameters < acmix.parameters > costs["convolution-path"].parameters
    assert costs["equal-rates"].parameters == acmix.parameters - 8
    saved = acmix.multiply_adds - costs["window-3"].multiply_adds
    assert costs["attention"].multiply_adds - costs["attention-window-3"].multiply_adds == saved > 0


def test_kernels_and_rates():
    assert rates(built("equal-rates")) == [(0.5, 0.5)] * 4
    assert rates(built("convolution")) == []
    assert all(operator.dep_weight.unique().tolist() == [0, 1] for operator in operators(built("acmix")))
    assert all(operator.dep_weight.unique().numel() > 2 for operator in operators(built("random-kernels")))


def test_quiet_shifts_are_as_small_as_random_kernels():
    for quiet, random in zip(operators(built("quiet-shifts")), operators(built("random-kernels")), strict=True):
        assert quiet.dep_weight.count_nonzero() == 9 * quiet.out_channels
        assert quiet.dep_weight.norm().item() == pytest.approx(random.dep_weight.norm().item(), rel=0.1)


def test_windows_and_positions():
    assert {operator.kernel_att for operator in operators(built("window-3"))} == {3}
    paths = [module for module in built("attention-window-3").modules() if isinstance(module, OnePath)]
    assert [(path.path, path.operator.kernel_att) for path in paths] == 4 * [("attention", 3)]
    assert not any(operator.position_weight.any() for operator in operators(built("no-positions")))


@pytest.mark.parametrize("model", ["resnet18", "acmix_resnet27"])
def test_other_models_are_refused(model):
    with pytest.raises(
        InputError,
        match="must be an ACmix-ResNet for this network of a study, got 'resnet18'|nearest names are acmix_resnet26",
    ):
        VARIANTS["convolution"].build(model, 10)
