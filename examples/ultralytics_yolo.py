"""ACmix in a YOLO of Ultralytics (AGPL-3.0, `pip install ultralytics`): swap convolutions, train, validate, export.

python examples/ultralytics_yolo.py yolo11n.pt data.yaml    # docs/ultralytics.md says what else there is
"""

import sys
from typing import Any

import rich
from ultralytics import YOLO

import acmix
from acmix.integrations import ultralytics


def main(network: str, data: str, **settings: Any) -> str:
    """Train a network with operators in its deepest stage; the file that ONNX Runtime reads."""
    ultralytics.register()
    model = YOLO(network)
    rich.print(acmix.replace_convolutions(model.model, select="model.8.*", warm_start=True))
    model.train(data=data, **settings)
    print(f"mAP50-95: {model.val(data=data).box.map:.3f}")
    return model.export(format="onnx", dynamic=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: ultralytics_yolo.py NETWORK DATA, as Ultralytics takes them: yolov8n.yaml coco8.yaml")
    main(*sys.argv[1:])
