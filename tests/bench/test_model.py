"""Networks side by side: what is measured, and held against what."""

import pytest
import torch
from timm.layers import DropPath

import acmix
from acmix import bench
from acmix.bench import model
from acmix.paths import TwoPaths


def test_networks_drop_no_branches_and_are_held_against_the_definition():
    network = acmix.create_model(
        "acmix_swin_tiny", depths=(1, 1), num_heads=(1, 2), embed_dim=32, num_classes=3, drop_path_rate=0.5
    )
    exact = model._by_definition(network)
    assert {layer.backend for layer in exact.modules() if isinstance(layer, TwoPaths)} == {"reference"}
    model._keep_paths(network)
    assert all(layer.drop_prob == 0 for layer in network.modules() if isinstance(layer, DropPath))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.train()(x).double(), exact.eval()(x.double()), rtol=1e-4, atol=1e-5)


@pytest.fixture
def small_networks():
    models = {"acmix": "acmix_resnet14_small", "resnet": "test_resnet"}
    return {name: acmix.create_model(model, num_classes=3) for name, model in models.items()}


def test_fused_networks_are_measured_forward_and_held_against_the_network(small_networks, monkeypatch):
    heard, made = [], []
    monkeypatch.setattr(model, "fuse", lambda network: made.append(acmix.fuse(network)) or made[-1])
    settings = {"input_size": (3, 32, 32), "batch": 2, "fused": True, "seconds": 0.01, "tell": heard.append}
    comparison = bench.compare_networks(small_networks, "resnet", **settings)
    assert [network.fusion_report.left for network in made] == [(), ()]
    assert sum(heard) == pytest.approx(0.01)
    assert comparison.settings["fused"]
    assert "fused" in comparison.title
    for measured in comparison.candidates.values():
        assert (measured.training, measured.training_memory) == (None, None)
        assert [memory for _, memory in measured.passes] == [measured.forward_memory]
        assert measured.error < 1e-4
    with torch.no_grad():
        made[0].fc.weight.mul_(2)
    monkeypatch.setattr(model, "fuse", lambda _: made[0])
    with pytest.raises(RuntimeError, match="acmix, contiguous is wrong"):
        bench.compare_networks(small_networks, "resnet", **settings)


def test_autocast_computes_in_bfloat16_on_weights_in_float32(small_networks):
    seen = set()
    for network in small_networks.values():
        network.register_forward_hook(lambda module, _, output: seen.add((module.training, output.dtype)))
    comparison = bench.compare_networks(
        small_networks, "resnet", input_size=(3, 32, 32), batch=2, autocast=True, seconds=0.0
    )
    # Copies in float64 are what they are held against.
    assert seen == {(False, torch.bfloat16), (True, torch.bfloat16), (False, torch.float64)}
    assert comparison.settings["autocast"]
    assert comparison.settings["dtype"] == "float32"
    assert all(1e-4 < measured.error < 0.1 for measured in comparison.candidates.values())
    assert all(len(measured.passes) == 2 for measured in comparison.candidates.values())
