"""Write the first images of a folder of IDX files as a folder of their own, for studies of a part of a data set.

python benchmarks/idx_cut.py SOURCE OUTPUT NUMBER
"""

import gzip
import sys
from pathlib import Path

# Bytes before the values, and values an image: counts stand in the second four bytes.
_FILES = {"train-images-idx3-ubyte.gz": (16, 28 * 28), "train-labels-idx1-ubyte.gz": (8, 1)}


def cut(source: Path, output: Path, number: int) -> None:
    """Keep the first images to train on, of 28 pixels; the others and the test images are left out."""
    output.mkdir(parents=True, exist_ok=True)
    for name, (header, size) in _FILES.items():
        values = gzip.decompress((source / name).read_bytes())
        kept = values[:4] + number.to_bytes(4) + values[8 : header + number * size]
        (output / name).write_bytes(gzip.compress(kept, mtime=0))


if __name__ == "__main__":
    cut(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
