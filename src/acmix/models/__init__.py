"""Networks with ACmix in timm's registry: importing this module registers them.

`create_model("acmix_resnet26", ...)` takes every argument of timm's; timm's own scripts take
`--device-modules acmix.models`.
"""

from timm import create_model

from acmix.models import pvt, resnet, san, swin
from acmix.models.backbones import detection_backbone, segmentation_backbone
from acmix.models.pvt import PyramidTransformer
from acmix.models.pyramid import PyramidACmix
from acmix.models.resnet import Bottleneck, ResNet, SmallImageResNet
from acmix.models.san import PatchwiseACmix, SelfAttentionNetwork
from acmix.models.swin import SwinBlock, SwinTransformer, WindowACmix, mix_paths

__all__ = [
    "Bottleneck",
    "PatchwiseACmix",
    "PyramidACmix",
    "PyramidTransformer",
    "ResNet",
    "SelfAttentionNetwork",
    "SmallImageResNet",
    "SwinBlock",
    "SwinTransformer",
    "WindowACmix",
    "create_model",
    "detection_backbone",
    "mix_paths",
    "pvt",
    "resnet",
    "san",
    "segmentation_backbone",
    "swin",
]
