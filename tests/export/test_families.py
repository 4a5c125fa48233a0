"""Every family as one ONNX file for every size, and compiled."""

import pytest
import torch

import acmix
from acmix.export import to_onnx
from tests.surgery.test_fusion import trained

# The PVT of the very size that it is exported with: it serves all others, too.
SMALL = {
    "acmix_swin_tiny": {"depths": (2, 1), "num_heads": (1, 2), "embed_dim": 16, "img_size": 48},
    "acmix_pvt_tiny": {
        "channels": (16,),
        "depths": (1,),
        "num_heads": (1,),
        "mlp_ratios": (2,),
        "ratios": (3,),
        "img_size": (48, 40),
    },
    "acmix_san10": {"channels": (32,), "depths": (1,), "kernels": (5,)},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_network_of_the_family_at_every_size(name, tmp_path):
    network = trained(acmix.create_model(name, num_classes=3, **SMALL[name]))
    written = to_onnx(network, tmp_path / "network.onnx", input_size=(3, 48, 40))
    assert written.step == 1
    assert len({check.shape for check in written.checks}) == 3


@pytest.mark.parametrize("name", SMALL)
def test_compiled_in_one_graph(name):
    network = trained(acmix.create_model(name, num_classes=3, **SMALL[name])).train()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)
    x = torch.randn(2, 3, 48, 40)
    output = compiled(x)
    torch.testing.assert_close(output, network(x), rtol=1e-3, atol=1e-4)
    output.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
