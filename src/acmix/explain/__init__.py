"""Look inside a network: what a pixel attends to, what each path gives, what speaks for a class.

Functions that return data; `acmix.pages.figures` draws it.
"""

from acmix.explain.answers import Answer, compare_backends
from acmix.explain.attention import PixelAttention, attention_map, pixel_attention
from acmix.explain.evidence import class_evidence
from acmix.explain.kernels import KernelChange, kernel_changes
from acmix.explain.layers import Rates, layer_arguments, layer_inputs, operators, rates
from acmix.explain.paths import PathShare, path_shares
from acmix.explain.regions import cell_at, cell_span, spread

__all__ = [
    "Answer",
    "KernelChange",
    "PathShare",
    "PixelAttention",
    "Rates",
    "attention_map",
    "cell_at",
    "cell_span",
    "class_evidence",
    "compare_backends",
    "kernel_changes",
    "layer_arguments",
    "layer_inputs",
    "operators",
    "path_shares",
    "pixel_attention",
    "rates",
    "spread",
]
