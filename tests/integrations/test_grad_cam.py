"""pytorch-grad-cam on networks, stages and operators, before and after fusion."""

import importlib

import pytest
import timm
import torch

import acmix
from tests.examples import load_example

pytestmark = pytest.mark.integrations
METHODS = ["GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "EigenCAM", "XGradCAM", "AblationCAM"]


@pytest.fixture
def network():
    return timm.create_model("acmix_resnet14_small", num_classes=3, zero_init_last=False).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64)


def test_a_stage_and_an_operator(network, images):
    example = load_example("cam")
    for layer in (network.layer4, network.layer4[-1].conv2):
        maps = example.look(network, layer, images, [0, 1])
        assert maps.shape == (2, 64, 64)
        assert maps.isfinite().all()
        assert maps.amax((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_the_map_is_what_gradients_say(network, images):
    """Grad-CAM's definition, arXiv 1610.02391: channels weighted by their mean gradient, what is negative left out."""
    found = load_example("cam").look(network, network.layer4[-1].conv2, images, [2, 2])
    features = []
    handle = network.layer4[-1].conv2.register_forward_hook(lambda *call: features.append(call[2]))
    logits = network(images)
    handle.remove()
    (slope,) = torch.autograd.grad(logits[:, 2].sum(), features)
    expected = (slope.mean((2, 3), keepdim=True) * features[0]).sum(1).relu()
    # They are enlarged between the ends, so that those agree.
    for map_of_one, cells in zip(found, expected, strict=True):
        assert map_of_one[0, 0] / map_of_one.max() == pytest.approx((cells[0, 0] / cells.max()).item(), abs=0.1)


def test_a_fused_network_says_the_same(network, images):
    example, fused = load_example("cam"), acmix.fuse(network)
    expected = example.look(network, network.layer4, images, [0, 1])
    torch.testing.assert_close(example.look(fused, fused.layer4, images, [0, 1]), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_methods(network, images, method):
    package = importlib.import_module("pytorch_grad_cam")
    before = network(images)
    with getattr(package, method)(model=network, target_layers=[network.layer4[-1].conv2]) as cam:
        assert torch.from_numpy(cam(images, None)).isfinite().all()
    assert torch.equal(network(images), before)
