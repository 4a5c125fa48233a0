"""Networks into runtimes: ONNX, and PyTorch's own exported programs."""

from acmix.export.checking import Check, ExportError
from acmix.export.onnx import OnnxExport, to_onnx
from acmix.export.program import to_package, to_program
from acmix.ops.tracing import without_gathers

__all__ = ["Check", "ExportError", "OnnxExport", "to_onnx", "to_package", "to_program", "without_gathers"]
