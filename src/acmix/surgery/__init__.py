"""Surgery on any network: ACmix in place of its convolutions, and networks made ready for inference."""

from acmix.surgery.fusion import FusedACmix, fuse
from acmix.surgery.replacement import replace_convolutions
from acmix.surgery.report import LayerReport, Report

__all__ = ["FusedACmix", "LayerReport", "Report", "fuse", "replace_convolutions"]
