import copy
import json

import pytest
from PIL import Image

from tests.drawn_shapes import draw, write_coco, write_yolo


@pytest.fixture(scope="session")
def pictures():
    return draw(16, side=64)


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory, pictures):
    return write_coco(tmp_path_factory.mktemp("coco"), pictures)


@pytest.fixture(scope="session")
def yolo_folder(tmp_path_factory, pictures):
    return write_yolo(tmp_path_factory.mktemp("yolo"), pictures)


BOX = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0}
SQUARE = [2, 3, 12, 3, 12, 15, 2, 15]


@pytest.fixture
def small():
    """Two images and one object: what a test changes before it writes it."""
    return copy.deepcopy(
        {
            "images": [
                {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
                {"id": 2, "file_name": "b.png", "width": 40, "height": 30},
            ],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
            "annotations": [BOX],
        }
    )


@pytest.fixture
def write(tmp_path):
    """Write annotations beside two images of 40 x 30 pixels."""

    def written(content, name="instances_all.json"):
        images = tmp_path / "images"
        if not images.is_dir():
            images.mkdir()
            for letter, colour in zip("ab", ("red", "blue"), strict=True):
                Image.new("RGB", (40, 30), colour).save(images / f"{letter}.png")
        file = tmp_path / "annotations" / name
        file.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(tmp_path)

    return written
