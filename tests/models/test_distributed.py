"""Networks of the family under DDP and FSDP learn what they learn alone."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from acmix.models import create_model

SMALL = {
    "acmix_swin_nano": {"embed_dim": 16, "img_size": 16},
    "acmix_pvt_tiny": {
        "channels": (16, 32),
        "depths": (1, 1),
        "num_heads": (1, 2),
        "mlp_ratios": (2, 2),
        "ratios": (2, 1),
    },
    "acmix_san10": {"channels": (32, 32), "depths": (1, 1), "kernels": (3, 5)},
}


@pytest.fixture
def group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def sharded(network):
    for stage in getattr(network, "stages", None) or network.layers:
        for block in stage.blocks:
            fully_shard(block, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    return fully_shard(network, mesh=torch.distributed.init_device_mesh("cpu", (1,)))


def learnt(network, wrapped):
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.1)
    # A second update tells whether a parameter was left out of the first.
    for seed in (1, 2):
        images = torch.randn(2, 3, 20, 16, generator=torch.Generator().manual_seed(seed))
        wrapped(images).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        name: getattr(parameter, "full_tensor", lambda p=parameter: p)()
        for name, parameter in network.named_parameters()
    }


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, sharded])
@pytest.mark.usefixtures("group")
def test_updates_are_those_of_the_network_alone(name, wrap):
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, **SMALL[name])
    alone = copy.deepcopy(network)
    expected = learnt(alone, alone)
    found = learnt(network, wrap(network))
    assert found.keys() == expected.keys()
    for key, parameter in expected.items():
        torch.testing.assert_close(
            found[key], parameter, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )
