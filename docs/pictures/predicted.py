"""Draw what a network predicts on some images: detected.png of docs/detection.md, segmented.png of segmentation.md.

Run: python docs/pictures/predicted.py RUN FILE.png IMAGE..., with a run of `detection_small` or `segmentation_small` on
what `python -m tests.drawn_shapes FOLDER` draws, and some of its validation images.
"""

import io
import sys
from pathlib import Path

from PIL import Image

import acmix
from acmix.pages.kinds import part_of
from acmix.tasks.kinds import KINDS

_GAP = 8


def draw(run: Path, images: list[Path]) -> Image.Image:
    """What `acmix predict --output` draws on images, side by side on nothing."""
    trained, faults = acmix.load(run), []
    predictions = KINDS[trained.task].predict(trained, images, faults)
    drawn = [part_of(trained.task).draw(Image.open(each.path).convert("RGB"), each)[".png"] for each in predictions]
    if faults:
        raise ValueError("; ".join(faults))
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in drawn]
    width = sum(picture.width for picture in pictures) + _GAP * (len(pictures) - 1)
    whole = Image.new("RGBA", (width, max(picture.height for picture in pictures)))
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width + _GAP
    return whole


if __name__ == "__main__":
    draw(Path(sys.argv[1]), [Path(name) for name in sys.argv[3:]]).quantize(256).save(sys.argv[2], optimize=True)
