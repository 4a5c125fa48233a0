"""Networks in int8, by both quantisers, keep their accuracy."""

from examples import runtimes
from tests.export.runtimes.digits import train


def test_accuracy_is_kept(tmp_path):
    """Of one network: it is trained longer than a quantiser takes."""
    digits = train()
    digits.hold(runtimes.onnx_runtime_int8, tmp_path)
    digits.hold(runtimes.openvino_int8, tmp_path)
