"""Draw explained.svg, the picture of docs/explain.md: a digit, layer by layer, as `acmix explain` draws it.

Run: python docs/pictures/explained.py RUN, with a run of `acmix train digits`, examples/tour.py's for instance.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

import acmix
from acmix.checkpoints.classifier import Classifier
from acmix.explain.images import explain_image
from acmix.pages import figures, theme

PICTURE = Path(__file__).with_suffix(".svg")


def draw(run: Path) -> theme.Drawing:
    """What every layer of a run's network makes of a zero."""
    classifier = acmix.load(run)
    if not isinstance(classifier, Classifier):
        raise TypeError(f"{run} must be a classifier's, got a {type(classifier).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        image = Image.open(acmix.data.export_digits(folder, count=1)[0]).convert("RGB")
    explanation = explain_image(classifier, image)
    figure = figures.explanation(explanation.picture, explanation.attention, explanation.evidence)
    name, probability = explanation.scores[0]
    words = f"A handwritten digit, taken for {name} ({probability:.0%}): attention of every head and evidence by layer"
    return theme.drawing(figure, words)


if __name__ == "__main__":
    PICTURE.write_bytes(draw(Path(sys.argv[1])).alone())
