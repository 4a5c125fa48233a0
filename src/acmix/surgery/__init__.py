"""Surgery on any network: ACmix in place of its convolutions, and networks made ready for inference."""

from acmix.surgery.fused import FusedACmix
from acmix.surgery.fusion import fuse
from acmix.surgery.replacement import replace_convolutions
from acmix.surgery.report import FusedLayer, FusionReport, LayerReport, Report

__all__ = [
    "FusedACmix",
    "FusedLayer",
    "FusionReport",
    "LayerReport",
    "Report",
    "fuse",
    "replace_convolutions",
]
