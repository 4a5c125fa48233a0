"""Benchmarks: functions that return data, a gate before every time, ratios measured side by side."""

from acmix.bench.bounds import LayerBounds, bound_layer, measure_rates
from acmix.bench.comparison import Candidate, Comparison, Measurement, compare
from acmix.bench.layer import RESNET50_LAYERS, compare_layer
from acmix.bench.measure import Timing
from acmix.bench.model import compare_networks
from acmix.bench.processors import measure_speeds
from acmix.bench.results import machine, save
from acmix.bench.scaling import Scaling, scale, sizes_of

__all__ = [
    "RESNET50_LAYERS",
    "Candidate",
    "Comparison",
    "LayerBounds",
    "Measurement",
    "Scaling",
    "Timing",
    "bound_layer",
    "compare",
    "compare_layer",
    "compare_networks",
    "machine",
    "measure_rates",
    "measure_speeds",
    "save",
    "scale",
    "sizes_of",
]
