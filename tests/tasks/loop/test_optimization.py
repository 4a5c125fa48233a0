"""What settings mean for updates."""

import copy
from dataclasses import replace

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from acmix import InputError
from acmix.tasks.classification.networks import create_network
from acmix.tasks.loop.optimization import WHOLE, make_optimizer, make_schedule, prepare_for_training
from acmix.tasks.loop.settings import LoopSettings

TINY = LoopSettings(model="test_resnet.r160_in1k", epochs=2)


def test_networks_recompute_and_average_over_processes():
    network = create_network("acmix_resnet14_small", num_classes=3)
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    image = torch.randn(2, 3, 16, 16)
    expected = torch.autograd.grad(network(image).sum(), network.conv1[0].weight)
    prepare_for_training(network, replace(TINY, recompute=True))
    found = torch.autograd.grad(network(image).sum(), network.conv1[0].weight)
    torch.testing.assert_close(found, expected)
    assert network.grad_checkpointing
    prepare_for_training(network, replace(TINY, synchronize_norms=True))
    assert all(isinstance(network.get_submodule(name), nn.SyncBatchNorm) for name in norms)
    with pytest.raises(InputError, match="model 'test_resnet.r160_in1k' cannot recompute activations; leave recompute"):
        prepare_for_training(nn.Linear(1, 1), replace(TINY, recompute=True))


def test_biases_norms_and_rates_are_not_decayed():
    network = create_network("acmix_resnet14_small", num_classes=10)
    optimizer = make_optimizer(network, TINY, 1e-3)
    names = {parameter: name for name, parameter in network.named_parameters()}
    decayed = {
        names[parameter]: group["weight_decay"] > 0 for group in optimizer.param_groups for parameter in group["params"]
    }
    assert len(decayed) == len(names)
    assert any(decayed.values())
    for name, decays in decayed.items():
        assert decays == (network.get_parameter(name).ndim > 1 and not name.endswith("bias")), name
    assert any("rate_attention" in name for name in decayed)


def test_rates_fall_with_depth():
    network = create_network("acmix_resnet14_small", num_classes=10)
    optimizer = make_optimizer(network, replace(TINY, layer_decay=0.5), 1e-3)
    make_schedule(optimizer, replace(TINY, epochs=10, warmup_epochs=0), 1e-3, 7)(0)
    names = {parameter: name for name, parameter in network.named_parameters()}
    rates = {names[parameter]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rates["fc.weight"] == pytest.approx(1e-3)
    assert rates["conv1.0.weight"] < rates["layer1.0.conv1.weight"] < rates["layer4.0.conv1.weight"] < 1e-3


def test_rate_warms_up_and_ends_at_zero():
    settings = replace(TINY, epochs=10)
    optimizer = make_optimizer(create_network(TINY.model, num_classes=10), settings, 1e-3)
    schedule = make_schedule(optimizer, settings, 1e-3, 7)
    rates = []
    for update in range(71):
        schedule(update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(1e-5)
    assert rates[:8] == sorted(rates[:8])
    assert rates[8:] == sorted(rates[8:], reverse=True)
    assert max(rates) == pytest.approx(1e-3, rel=0.03)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_rate_is_scaled_where_a_batch_is_named():
    assert TINY.scaled_learning_rate(640) == TINY.learning_rate
    linear = replace(TINY, learning_rate=0.1, learning_rate_batch=256)
    assert linear.scaled_learning_rate(1024) == pytest.approx(0.4)
    assert replace(linear, learning_rate_scaling="square_root").scaled_learning_rate(1024) == pytest.approx(0.2)


# States of the first hold what PyTorch does not gather; the last wants gradients of gradients.
REFUSED = ("adafactorbv", "adafactorbvc", "cadafactorbv", "cadafactorbvc", "adahessian")
# These need packages or a GPU.
ELSEWHERE = ("bnb", "fused")


@pytest.mark.parametrize("name", REFUSED)
def test_optimisers_that_cannot_be_resumed_are_refused(name):
    with pytest.raises(
        InputError, match=f"optimizer '{name}' cannot be used here: it does not step, or cannot be saved"
    ):
        prepare_for_training(nn.Linear(2, 2), replace(TINY, optimizer=name))


@pytest.mark.filterwarnings("ignore:.*opt_einsum")
@pytest.mark.parametrize("name", [name for name in list_optimizers() if name not in REFUSED])
def test_every_other_optimiser_goes_on_from_its_state(name):
    settings = replace(TINY, optimizer=name)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    state = torch.get_rng_state()
    if name.startswith(ELSEWHERE):
        with pytest.raises(InputError, match="cannot be used here"):
            prepare_for_training(network, settings)
        return
    prepare_for_training(network, settings)
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.rand(4, 3, 4, 4)
    networks = [network, copy.deepcopy(network)]
    first, second = (make_optimizer(each, settings, 1e-3) for each in networks)
    step(network, first, images)
    # In this order: PyTorch lets an optimiser step to see what its state holds.
    saved = get_optimizer_state_dict(network, first, options=WHOLE)
    set_optimizer_state_dict(networks[1], second, copy.deepcopy(saved), options=WHOLE)
    set_model_state_dict(networks[1], get_model_state_dict(network, options=WHOLE), options=WHOLE)
    for each, optimizer in zip(networks, (first, second), strict=True):
        step(each, optimizer, images)
    for one, other in zip(*(each.parameters() for each in networks), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def step(network, optimizer, images):
    torch.manual_seed(0)
    network(images).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
