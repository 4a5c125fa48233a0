"""Segmenters: every decoder, every size of images, and what cannot be."""

import pytest
import torch

from acmix import InputError
from acmix.models.segmenters import SEGMENTERS, segmenter

SMALL = "test_resnet.r160_in1k"


def make(name, backbone=SMALL, **options):
    return segmenter(name, backbone=backbone, num_classes=3, decoder_channels=64, **options).eval()


@pytest.mark.parametrize("name", SEGMENTERS)
@pytest.mark.parametrize("size", [(32, 32), (1, 7), (33, 65)])
def test_every_size_has_logits_of_its_size(name, size):
    with torch.no_grad():
        assert make(name)(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_continuing_an_image_changes_nothing_where_strides_divide():
    network, images = make("semantic_fpn"), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network(images), network.network(images))


def test_networks_for_small_images_have_finer_maps():
    network = make("semantic_fpn", "acmix_resnet14_small", block_args={"quiet_shifts": True})
    with torch.no_grad():
        assert network.network.decoder(network.network.encoder(torch.rand(1, 3, 32, 48))).shape[-2:] == (16, 24)
        assert network(torch.rand(1, 3, 31, 50)).shape == (1, 3, 31, 50)
    network.set_grad_checkpointing()


def test_every_level_of_a_small_network_counts():
    network, images = make("semantic_fpn", "acmix_resnet14_small", drop_rate=0.0), torch.rand(1, 3, 32, 32)
    features = [feature.detach().requires_grad_() for feature in network.network.encoder(images)]
    network.network.decoder(features).square().sum().backward()
    assert [feature.grad is not None and bool(feature.grad.any()) for feature in features] == [False, *[True] * 4]


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_is_that_of_the_last_features(stride):
    network = make("deeplabv3_plus", output_stride=stride)
    assert network.network.encoder(torch.rand(1, 3, 64, 64))[-1].shape[-1] == 64 // stride


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {}, "is no segmenter"),
        ("semantic_fpn", {"backbone": "resnet_of_mine"}, "resnet_of_mine"),
        ("semantic_fpn", {"backbone": "vit_tiny_patch16_224"}, "does not serve semantic_fpn"),
        ("semantic_fpn", {"output_stride": 8}, "leave it out"),
        ("semantic_fpn", {"backbone": "resmlp_12_224"}, "does not serve semantic_fpn"),
        ("upernet", {"drop_rate": 0.1}, "upernet has none"),
        ("deeplabv3_plus", {"output_stride": 32}, "must be one of"),
        ("deeplabv3_plus", {"backbone": "acmix_pvt_tiny"}, "it takes no output_stride, its stages do not dilate"),
        ("deeplabv3_plus", {"backbone": "acmix_swin_tiny"}, "it takes no output_stride, its stages do not dilate"),
        ("deeplabv3_plus", {"backbone": "acmix_san10"}, "it takes no output_stride, its stages do not dilate"),
        ("semantic_fpn", {"block_args": {"quiet_shifts": True}}, "it takes no quiet_shifts; choose another"),
    ],
)
def test_what_cannot_be_is_one_line(name, options, message):
    with pytest.raises(InputError, match=message) as refused:
        make(name, **options)
    assert "\n" not in str(refused.value)
