"""Weights into networks: other people's names, all that fits or nothing, and what is said of the rest."""

import collections
import itertools
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import mnasnet0_5

from acmix import ACmix
from acmix.checkpoints import load_weights, to_published

WRAPPERS = ["_orig_mod.", "module.", "model.", "net.", "_fsdp_wrapped_module.", "base_model.model.", "ema_model."]
ORDERS = [(), *((one,) for one in WRAPPERS), *itertools.product(WRAPPERS, repeat=2)]


def make(seed=0):
    torch.manual_seed(seed)
    parts = {"conv1": nn.Conv2d(3, 8, 3), "bn1": nn.BatchNorm2d(8), "body": ACmix(8, 8, heads=2), "fc": nn.Linear(8, 5)}
    network = nn.Sequential(collections.OrderedDict(parts))
    network.bn1.running_mean.normal_()
    network.bn1.num_batches_tracked += 7 + seed
    return network


@pytest.fixture
def network():
    return make()


def copied(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_equal(network, expected):
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def assert_loads(state, network):
    other = make(1)
    said = load_weights(other, state)
    assert_equal(other, network.state_dict())
    assert set(said.loaded) == set(other.state_dict())
    return said


def assert_refused(network, state, *rules):
    """In one line, and nothing is loaded."""
    before = copied(network)
    with pytest.raises(ValueError, match=re.escape(rules[0])) as caught:
        load_weights(network, state)
    for rule in rules:
        assert rule in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("order", ORDERS, ids="".join)
def test_prefixes_in_any_order(network, order):
    prefix = "".join(order)
    assert_loads({prefix + name: tensor for name, tensor in network.state_dict().items()}, network)
    assert_loads({prefix + name: tensor for name, tensor in to_published(network.state_dict()).items()}, network)


@given(st.lists(st.sampled_from([*WRAPPERS, "encoder.", "a.b."]), max_size=5))
def test_prefixes_repeated(order):
    network = make()
    assert_loads({"".join(order) + name: tensor for name, tensor in network.state_dict().items()}, network)


@pytest.mark.parametrize(
    "part", ["_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_orig_mod._orig_mod"]
)
def test_wrappers_within_names(network, part):
    state = {re.sub(r"^(body|conv1)\.", rf"\1.{part}.", name): tensor for name, tensor in network.state_dict().items()}
    assert_loads(state, network)
    assert_loads({f"module.{name}": tensor for name, tensor in to_published(state).items()}, network)


def test_wrappers_of_pytorch(network):
    averaged = torch.optim.swa_utils.AveragedModel(nn.DataParallel(torch.compile(network)))
    said = assert_loads(dict(averaged.state_dict()), network)
    assert said.unused == ("n_averaged",)
    assert str(said) == "16 of 16 tensors loaded, from under 'module.module.'; not used: n_averaged"


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, lambda network: torch.compile(nn.DataParallel(torch.compile(network)))]
)
def test_networks_that_are_wrapped_themselves(network, wrap):
    other = make(1)
    said = load_weights(wrap(other), {f"model.{name}": tensor for name, tensor in network.state_dict().items()})
    assert_equal(other, network.state_dict())
    assert set(said.loaded) == set(wrap(other).state_dict())


def test_weights_that_hold_the_network_twice(network):
    state = network.state_dict()
    twice = {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in state.items()}
    assert_refused(make(1), twice, "2 times, under 'student.', 'teacher.'; keep those of one")
    # One of them has more of it.
    del twice["student.fc.bias"]
    assert assert_loads(twice, network).prefix == "teacher."


def test_names_that_become_one(network):
    state = network.state_dict()
    assert_refused(
        make(1), {**state, "_orig_mod.fc.bias": torch.ones(5)}, "fc.bias and _orig_mod.fc.bias are both fc.bias"
    )
    published = to_published(state)
    assert_refused(
        make(1), {**published, "body.qkv.bias": state["body.qkv.bias"]}, "body.qkv.bias is there under its published"
    )


def test_no_prefix_is_taken_off_that_the_network_has():
    network = nn.ModuleDict({"model": nn.Linear(2, 2), "module": nn.ModuleDict({"model": nn.Linear(2, 2)})})
    other = nn.ModuleDict({"model": nn.Linear(2, 2), "module": nn.ModuleDict({"model": nn.Linear(2, 2)})})
    load_weights(other, network.state_dict())
    assert_equal(other, network.state_dict())


def test_mismatch_names_keys_and_shapes_and_loads_nothing():
    layer = ACmix(4, 8, heads=2)
    wrong = {name: tensor + 1 for name, tensor in layer.state_dict().items()}
    del wrong["qkv.bias"]
    wrong["extra"] = torch.zeros(1)
    wrong["fc_weight"] = torch.zeros(9, 7)
    rules = ("missing: qkv.bias", "unexpected: extra", "fc_weight must be (9, 6), got (9, 7)")
    assert_refused(layer, wrong, "state_dict must hold exactly the weights of ACmix", *rules)


def test_part_of_a_larger_network_is_not_taken():
    small, large = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert_refused(small, large.state_dict(), "unexpected: 1.weight, 1.bias")
    assert_refused(large, small.state_dict(), "missing: 1.weight, 1.bias")
    assert_refused(small, {f"net.{name}": tensor for name, tensor in large.state_dict().items()}, "under 'net.'")


def test_long_lists_are_cut():
    network = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(13)))
    with pytest.raises(ValueError, match=r"9\.weight and 3 more$"):
        load_weights(network, {})


def test_counters_may_lack_or_be_too_many(network):
    state = network.state_dict()
    without = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    other = make(1)
    said = load_weights(other, without)
    assert said.kept == ("bn1.num_batches_tracked",)
    assert other.bn1.num_batches_tracked == 8
    assert str(said) == "15 of 16 tensors loaded; left as they were: bn1.num_batches_tracked"
    said = assert_loads({**state, "body.num_batches_tracked": torch.tensor(3)}, network)
    assert said.unused == ("body.num_batches_tracked",)
    # Averages of counts are no counts.
    other = make(1)
    assert load_weights(other, {**state, "bn1.num_batches_tracked": torch.tensor(3.5)}).kept == (
        "bn1.num_batches_tracked",
    )
    assert other.bn1.num_batches_tracked == 8


def test_heads_of_another_size_stay(network):
    state = network.state_dict()
    for shapes in ({"fc.weight": (7, 8), "fc.bias": (7,)}, {"fc.bias": (7,)}):
        other = make(1)
        before = copied(other)
        changed = {**state, **{name: torch.zeros(shape) for name, shape in shapes.items()}}
        said = load_weights(other, {f"model.{name}": tensor for name, tensor in changed.items()}, heads=("fc",))
        assert said.kept == ("fc.weight", "fc.bias")
        assert_equal(other, state | {name: before[name] for name in said.kept})
        assert_refused(make(1), changed, "wrong shape: fc.")
    with pytest.raises(ValueError, match="fc.bias must hold floating-point numbers, got torch.int8"):
        load_weights(make(1), {**state, "fc.bias": torch.zeros(5, dtype=torch.int8)}, heads=("fc",))
    other = make(1)
    said = load_weights(other, {name: tensor for name, tensor in state.items() if name != "fc.bias"}, heads=("fc",))
    assert said.kept == ("fc.weight", "fc.bias")
    headless = nn.Sequential(collections.OrderedDict(list(network.named_children())[:-1]))
    assert load_weights(headless, state, heads=("fc",)).unused == ("fc.weight", "fc.bias")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(network, dtype):
    other = make(1)
    load_weights(other, network.to(dtype).state_dict())
    assert_equal(other, network.float().state_dict())


@pytest.mark.parametrize(
    ("tensor", "rule"),
    [
        (torch.zeros(5, dtype=torch.int8), "fc.bias must hold floating-point numbers, got torch.int8"),
        (torch.zeros(5, dtype=torch.bool), "fc.bias must hold floating-point numbers, got torch.bool"),
        (torch.zeros(5, dtype=torch.complex64), "fc.bias must hold floating-point numbers, got torch.complex64"),
        (torch.zeros(5).to(torch.float8_e4m3fn), "fc.bias must hold floating-point numbers, got torch.float8_e4m3fn"),
        (torch.tensor([0, 0, 0, 0, float("nan")]), "fc.bias holds NaN or infinity in torch.float32"),
        (torch.full((5,), float("-inf")), "fc.bias holds NaN or infinity in torch.float32"),
        (torch.full((5,), 1e300, dtype=torch.float64), "fc.bias holds NaN or infinity in torch.float32"),
        (torch.zeros(5, device="meta"), "fc.bias has no data"),
        (nn.UninitializedParameter(), "fc.bias has no data"),
        (torch.zeros(5).to_sparse(), "fc.bias is sparse"),
        ([0.0] * 5, "fc.bias is no tensor but list"),
        (torch.tensor(0.0), "fc.bias must be (5,), got ()"),
    ],
    ids=str,
)
def test_tensors_that_cannot_be_copied(network, tensor, rule):
    assert_refused(make(1), {**network.state_dict(), "fc.bias": tensor}, rule)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_tensors(network):
    quantised = torch.quantize_per_tensor(torch.zeros(5), 0.1, 0, torch.qint8)
    assert_refused(make(1), {**network.state_dict(), "fc.bias": quantised}, "fc.bias is quantised")


def test_running_statistics_must_be_finite_and_masks_need_not():
    network = nn.Sequential(nn.BatchNorm2d(2))
    state = copied(network)
    assert_refused(network, {**state, "0.running_var": torch.tensor([1, float("inf")])}, "0.running_var holds NaN")
    network.register_buffer("mask", torch.tensor([0, float("-inf")]))
    load_weights(network, copied(network))


def test_views_of_one_memory(network):
    memory = torch.cat([tensor.flatten().float() for tensor in network.state_dict().values()])
    sizes = [tensor.numel() for tensor in network.state_dict().values()]
    parts = zip(network.state_dict().items(), memory.split(sizes), strict=True)
    assert_loads({name: part.view(tensor.shape).to(tensor.dtype) for (name, tensor), part in parts}, network)


def tied():
    network = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    network["b"].weight = network["a"].weight
    return network


def test_one_tensor_of_two_names():
    state = copied(tied())
    for names in (("a.weight", "b.weight"), ("a.weight",), ("b.weight",)):
        network = tied()
        load_weights(network, {name: tensor for name, tensor in state.items() if "bias" in name or name in names})
        assert_equal(network, state)
    rule = "a.weight and b.weight are one tensor in the network and two in the weights"
    assert_refused(tied(), {**state, "b.weight": torch.ones(2, 2)}, rule)


def test_networks_without_data():
    state = nn.Linear(2, 2).state_dict()
    with pytest.raises(ValueError, match="no data for weight, bias"):
        load_weights(nn.Linear(2, 2, device="meta"), state)
    with pytest.raises(ValueError, match="no data for weight, bias"):
        load_weights(nn.LazyLinear(2), state)


@pytest.mark.parametrize("given", [lambda state: state, dict])
def test_modules_that_ask_for_the_version_of_weights(given):
    source, target = (mnasnet0_5(num_classes=2) for _ in range(2))
    # Plain mappings, those of safetensors for one, hold no versions.
    load_weights(target, given(source.state_dict()))
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)


class Versioned(nn.Linear):
    """Weights of the first version are halved."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others):
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"] / 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


def test_weights_that_fit_are_of_the_networks_own_version():
    source, target = (nn.Sequential(Versioned(2, 2)) for _ in range(2))
    load_weights(target, {f"module.{name}": tensor for name, tensor in source.state_dict().items()})
    assert torch.equal(target[0].weight, source[0].weight)
