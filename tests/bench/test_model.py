"""Networks side by side: no branch is dropped, and the exact copy computes by the definition."""

import torch
from timm.layers import DropPath

import acmix
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
