"""Ultralytics without a network: its settings and a font in a folder of the tests, and nothing installed at use."""

import os
import shutil

import matplotlib
import pytest


@pytest.fixture(scope="session", autouse=True)
def _alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ultralytics")
    # The font that it downloads where it is missing.
    (folder / "Ultralytics").mkdir()
    shutil.copy(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", folder / "Ultralytics/Arial.ttf")
    os.environ |= {"YOLO_CONFIG_DIR": str(folder), "YOLO_AUTOINSTALL": "False", "YOLO_VERBOSE": "False"}
