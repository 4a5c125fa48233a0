"""Surgery on any network: ACmix in place of its convolutions or attention, and networks made ready for inference."""

import importlib
from typing import TYPE_CHECKING, Any

from acmix.surgery.bottleneck import FusedBottleneck
from acmix.surgery.fused import FusedACmix
from acmix.surgery.fusion import fuse
from acmix.surgery.replacement import replace_convolutions
from acmix.surgery.report import AttentionLayer, AttentionReport, FusedLayer, FusionReport, LayerReport, Report

if TYPE_CHECKING:
    from acmix.surgery.attention import replace_attention

__all__ = [
    "AttentionLayer",
    "AttentionReport",
    "FusedACmix",
    "FusedBottleneck",
    "FusedLayer",
    "FusionReport",
    "LayerReport",
    "Report",
    "fuse",
    "replace_attention",
    "replace_convolutions",
]


def __getattr__(name: str) -> Any:
    # timm, whose networks it is of, takes seconds to import.
    if name != "replace_attention":
        raise AttributeError(f"module 'acmix.surgery' has no attribute {name!r}")
    return importlib.import_module("acmix.surgery.attention").replace_attention
