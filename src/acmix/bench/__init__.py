"""Benchmarks: functions that return data, a gate before every time, ratios measured side by side."""

from acmix.bench.layer import RESNET50_LAYERS, LayerComparison, Measurement, compare_layer
from acmix.bench.results import machine, save

__all__ = ["RESNET50_LAYERS", "LayerComparison", "Measurement", "compare_layer", "machine", "save"]
