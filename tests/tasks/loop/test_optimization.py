"""What settings mean for updates."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from acmix import InputError
from acmix.tasks.classification.networks import create_network
from acmix.tasks.loop.optimization import make_optimizer, make_schedule, prepare_for_training
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
