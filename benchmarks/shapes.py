"""Draw the pictures of the study of detectors: shapes of widely different sizes on clutter, boxes as COCO has them.

python -m benchmarks.shapes OUTPUT
"""

import sys
from pathlib import Path

from tests.drawn_shapes import draw, write_coco

# COCO counts objects below 32 x 32 pixels as small, those above 96 x 96 as large: 45 and 10 % of these.
PICTURES, SIDE, MOST, RADII, BRUSH = 1200, 256, 4, (0.04, 0.4), 2.5


if __name__ == "__main__":
    pictures = draw(PICTURES, side=SIDE, most=MOST, radii=RADII, brush=BRUSH)
    write_coco(Path(sys.argv[1]), pictures, masks=False, share=1 / 3)
