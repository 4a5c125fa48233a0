"""Take report.png, the picture of docs/train.md: parts of a report, in Chromium.

Run: python docs/pictures/report.py REPORT.html, with the report of `make demo`, demo/run/report.html.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

PICTURE = Path(__file__).with_suffix(".png")
_WIDTH, _HEIGHT, _EDGE = 1100, 3000, 24
# Parts of the page, by the id of their heading; what else it has is left out.
_SHOWN = ('<h2 id="curves"', '<h2 id="layers"')
# How fast the machine was that drew the picture says nothing to a reader.
_TIMES = re.compile(r"<div><dt>(training and validation|images/s, median)</dt><dd>[^<]*</dd></div>")


def draw(page: Path) -> Image.Image:
    """The head of a page, the curves and the layers."""
    with tempfile.TemporaryDirectory() as folder:
        shown, file = Path(folder) / "page.html", Path(folder) / "page.png"
        head, *parts = re.split("(?=<h2 )", _TIMES.sub("", page.read_text()))
        shown.write_text(head + "".join(part for part in parts if part.startswith(_SHOWN)))
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={_WIDTH},{_HEIGHT}"]
        subprocess.run([*command, f"--screenshot={file}", shown.as_uri()], check=True, capture_output=True)  # noqa: S603
        picture = Image.open(file).convert("RGB")
    _, _, _, bottom = ImageChops.difference(picture, Image.new("RGB", picture.size, picture.getpixel((0, 0)))).getbbox()
    return picture.crop((0, 0, _WIDTH, min(bottom + _EDGE, _HEIGHT)))


if __name__ == "__main__":
    draw(Path(sys.argv[1])).quantize(256).save(PICTURE, optimize=True)
