"""Write what pycocotools makes of the detections of test_figures, where it is installed.

python -m tests.tasks.detection.pycocotools_figures > tests/data/pycocotools.json
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from acmix.data.annotated import open_annotated
from acmix.tasks.detection.figures import ground_truth, results
from tests import drawn_shapes
from tests.tasks.detection.test_figures import packed


def main() -> None:
    """Compare boxes, then masks."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        drawn_shapes.write_coco(Path(folder), drawn_shapes.draw(40, side=120), share=0.5)
        images = open_annotated(folder).validation
        found, written = packed(images), {}
        for kind in ("bbox", "segm"):
            truth = COCO()
            truth.dataset = ground_truth(images)
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(results(images, found, masks=kind == "segm")), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            precision = evaluation.eval["precision"][:, :, :, 0, -1]
            classes = [float(precision[:, :, at][precision[:, :, at] > -1].mean()) for at in range(3)]
            written[kind] = {"stats": evaluation.stats.tolist(), "classes": classes}
    sys.stdout.write(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
