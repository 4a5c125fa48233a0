"""Networks of Ultralytics with our layer, from the YAML to the file that a runtime reads."""

import pytest

pytestmark = pytest.mark.integrations


def test_a_network_is_built():
    from ultralytics import YOLO

    assert YOLO("yolo11n.yaml").task == "detect"
