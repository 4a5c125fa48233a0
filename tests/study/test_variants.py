import copy

import pytest
import timm
import torch
from timm.models import _registry
from timm.models.swin_transformer import WindowAttention

from acmix import ACmix, InputError
from acmix.accounting import convolution_twin
from acmix.models import PatchwiseACmix, PyramidACmix, WindowACmix
from acmix.study.edits import OnePath, spare_projections
from acmix.study.kinds import KINDS
from acmix.study.networks import with_operators
from acmix.study.variants import VARIANTS, rates, usual_variants
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop.optimization import make_optimizer

MODEL, SIZE = "acmix_resnet14_small", (3, 32, 32)


# A study of every family has these networks.
OF_RESNET = [name for name in VARIANTS if name != "equal-attention" and "block-a-stage" not in name]


def shape(model=MODEL, classes=10):
    return KINDS["classification"].shape(Settings(model=model), classes)


def built(name):
    return VARIANTS[name].build(shape())


def test_a_name_that_is_registered_anew_is_another_network(monkeypatch):
    with_operators(MODEL)
    monkeypatch.setitem(_registry._model_entrypoints, MODEL, lambda **_: torch.nn.Identity())
    with pytest.raises(InputError, match="model must be an"):
        with_operators(MODEL)


def operators(network):
    return [module for module in network.modules() if isinstance(module, ACmix)]


ALONE = ["attention", "convolution-path"]
BOTH = ["equal-rates", "acmix", "random-kernels"]
OF_SWIN = [*ALONE, *BOTH, "equal-attention"]
FAMILY = {MODEL: OF_RESNET, "acmix_swin_nano": OF_SWIN, "acmix_pvt_tiny": ALONE, "acmix_san10": ALONE}


@pytest.mark.parametrize(("model", "name"), [(model, name) for model, names in FAMILY.items() for name in names])
def test_every_network_learns(model, name):
    network = VARIANTS[name].build(shape(model))
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    without = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    fixed = [key for key, parameter in network.named_parameters() if not parameter.requires_grad]
    assert without == fixed
    learned = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert VARIANTS[name].cost(shape(model), SIZE).parameters == learned


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
    ours = VARIANTS["attention"].build(shape("acmix_swin_nano")).double().eval()
    settings = {"patch_size": 2, "window_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2)}
    theirs = timm.models.SwinTransformer(img_size=32, num_classes=10, drop_path_rate=0.0, **settings).double().eval()
    state = {name.replace(".operator.", "."): tensor for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(state)
    image = torch.randn(2, *SIZE, dtype=torch.float64)
    torch.testing.assert_close(ours(image), theirs(image))


def test_a_swin_alone_is_widened_to_as_many_multiply_adds():
    costs = {
        name: VARIANTS[name].cost(shape("acmix_swin_nano"), SIZE) for name in ("attention", "equal-attention", "acmix")
    }
    assert costs["attention"].multiply_adds < costs["acmix"].multiply_adds
    assert costs["equal-attention"].multiply_adds == pytest.approx(costs["acmix"].multiply_adds, rel=0.01)


def test_usual_networks_of_a_family():
    assert set(usual_variants(MODEL)) == {"convolution", "equal-convolution", *ALONE, *BOTH}
    assert set(usual_variants("acmix_swin_nano")) == set(OF_SWIN)
    assert set(usual_variants("acmix_pvt_tiny")) == set(usual_variants("acmix_san10")) == {*ALONE, *BOTH}
    with pytest.raises(
        InputError, match="model must be an ACmix-Swin for this network of a study, got 'acmix_resnet14"
    ):
        VARIANTS["equal-attention"].build(shape())


def test_a_seed_fixes_weights_however_the_network_is_looked_at():
    states = []
    for build in (lambda: timm.create_model(MODEL, num_classes=3), lambda: VARIANTS["acmix"].build(shape(classes=3))):
        torch.manual_seed(5)
        states.append(build().state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_costs():
    names = ["acmix", "convolution", "equal-convolution", *ALONE, "equal-rates", "window-3", "attention-window-3"]
    costs = {name: VARIANTS[name].cost(shape(), SIZE) for name in names}
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
        match="must be an ACmix-ResNet for this network of a study, got 'resnet18'|nearest are acmix_resnet26",
    ):
        VARIANTS["convolution"].build(shape(model))


def where(name, model="acmix_resnet26"):
    return [
        place for place, module in VARIANTS[name].build(shape(model, 3)).named_modules() if isinstance(module, ACmix)
    ]


def test_placements():
    assert where("last-stage") == ["layer4.0.conv2"]
    assert where("last-two-stages") == [*(f"layer3.{block}.conv2" for block in range(4)), "layer4.0.conv2"]
    assert where("first-two-stages") == ["layer1.0.conv2", "layer2.0.conv2", "layer2.1.conv2"]
    assert where("block-a-stage") == ["layer1.0.conv2", "layer2.1.conv2", "layer3.3.conv2", "layer4.0.conv2"]
    assert len(where("acmix")) == 8
    with pytest.raises(InputError, match="all bottlenecks of acmix_resnet14_small would have ACmix"):
        VARIANTS["block-a-stage"].build(shape(classes=3))


def test_the_rest_of_a_placed_network_is_that_of_convolutions():
    placed = VARIANTS["last-stage"].build(shape(classes=3)).state_dict()
    plain = VARIANTS["convolution"].build(shape(classes=3)).state_dict()
    assert {name for name in plain if plain[name].shape != placed.get(name, plain["bn1.weight"][:0]).shape} == {
        "layer4.0.conv2.weight"
    }
    # As timm starts its own: 3x3 kernels of the same spread.
    kernels = [states["layer3.0.conv2.weight"] for states in (placed, plain)]
    assert kernels[0].std().item() == pytest.approx(kernels[1].std().item(), rel=0.05)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("equal-") and "stage" in name])
def test_twins_of_placements_have_as_many_parameters(name):
    twin, placed = (VARIANTS[each].cost(shape("acmix_resnet26"), SIZE) for each in (name, name.removeprefix("equal-")))
    assert twin.parameters == pytest.approx(placed.parameters, rel=0.02)


def test_starts():
    def layers(name):
        torch.manual_seed(0)
        return operators(built(name))

    assert rates(built("as-convolution")) == [(0.0, 1.0)] * 4
    assert rates(built("as-convolution-and-attention")) == [(0.5, 1.0)] * 4
    image = torch.randn(1, 16, 8, 8)
    layer = layers("as-convolution")[0]
    kernel = torch.autograd.functional.jacobian(lambda image: layer(image).sum((0, 2, 3)), image)
    # Kernels of Kaiming's spread, fan-out 9 x 16; the rank that the path has keeps most of it.
    assert kernel[:, 0, :, 4, 4].square().mean().sqrt().item() == pytest.approx((2 * 9 / (9 * 16)) ** 0.5, rel=0.3)
    for uneven, quiet in zip(layers("uneven-shifts"), layers("quiet-shifts"), strict=True):
        groups = uneven.dep_weight.unflatten(0, (-1, uneven.heads))
        assert not torch.equal(groups[:, 0], groups[:, 1])
        assert uneven.dep_weight.norm().item() == pytest.approx(quiet.dep_weight.norm().item(), rel=0.1)


def test_rates_that_learn_faster():
    steps = []
    for name in ("acmix", "fast-rates"):
        torch.manual_seed(0)
        network = built(name)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        network(torch.randn(2, 3, 16, 16)).square().mean().backward()
        optimizer.step()
        steps.append([rate - 0.5 for pair in rates(network) for rate in pair])
    assert len(steps[0]) == 8
    # A gradient through a factor of ten, and a step through it again.
    torch.testing.assert_close(torch.tensor(steps[1]), 100 * torch.tensor(steps[0]), rtol=2e-3, atol=1e-6)


def test_projections_without_decay():
    network = built("spared-projections")
    optimizer = make_optimizer(network, Settings(model=MODEL, weight_decay=0.1), 0.01)
    spared = {id(item) for group in optimizer.param_groups if not group["weight_decay"] for item in group["params"]}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in spared}
    assert {name for name in names if "qkv.weight" in name} == {
        f"layer{stage}.0.conv2.qkv.weight" for stage in range(1, 5)
    }
    assert not any("conv1.weight" in name or "fc_weight" in name for name in names)


@pytest.mark.parametrize(
    ("model", "parts"),
    [("acmix_swin_nano", "qkv"), ("acmix_pvt_tiny", "q kv sr"), ("acmix_san10", "query key value")],
)
def test_projections_of_every_family_are_spared(model, parts):
    with torch.device("meta"):
        network, plain = (timm.create_model(model) for _ in range(2))
    spare_projections(network)
    own = plain.no_weight_decay() if hasattr(plain, "no_weight_decay") else set()
    added = network.no_weight_decay() - own
    assert {name.split(".")[-2] for name in added} - {"norm"} == {*parts.split()}
    assert added <= {name for name, _ in network.named_parameters()}
