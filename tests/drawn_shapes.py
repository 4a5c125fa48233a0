"""Drawn pictures of three kinds of shapes on clutter, as people have annotated images: COCO, YOLO, mask PNGs.

The same seed draws the same pictures. `python -m tests.drawn_shapes FOLDER` writes all three kinds of data.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "triangle")
_CORNERS = {"circle": 40, "square": 4, "triangle": 3}
# Pictures are drawn so many times larger and made smaller, so that edges are smooth.
_FINE = 4


@dataclass(frozen=True)
class Shape:
    """An object of a picture: index into CLASSES, and its outline in pixels, `(points, 2)`."""

    label: int
    outline: np.ndarray

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2."""
        return (*self.outline.min(0).tolist(), *self.outline.max(0).tolist())

    @property
    def area(self) -> float:
        """Within the outline, in pixels."""
        x, y = self.outline.T
        return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2

    def mask(self, side: int) -> np.ndarray:
        """The pixels `(side, side)` whose centres lie within the outline."""
        # Pillow takes pixels for inside that the outline touches: hardly any are of so fine a picture.
        fine = 4 * _FINE
        image = Image.new("1", (side * fine, side * fine))
        ImageDraw.Draw(image).polygon([tuple(point) for point in self.outline * fine], fill=1)
        return np.asarray(image)[fine // 2 :: fine, fine // 2 :: fine]


@dataclass(frozen=True)
class Picture:
    """A picture and what it shows."""

    image: Image.Image
    shapes: tuple[Shape, ...]


def draw(
    count: int = 160,
    *,
    side: int = 100,
    seed: int = 0,
    most: int = 4,
    radii: tuple[float, float] = (0.07, 0.24),
    brush: float = 1.0,
) -> list[Picture]:
    """Draw square pictures of one to `most` shapes each, which hardly overlap.

    Args:
        count: Pictures.
        side: Of each, in pixels.
        seed: Of all that is drawn.
        most: Shapes of a picture.
        radii: Least and greatest of a shape, as shares of the side.
        brush: How thick clutter is.
    """
    generator = np.random.default_rng(seed)
    return [_draw(generator, side, most, radii, brush) for _ in range(count)]


def _draw(
    generator: np.random.Generator, side: int, most: int, radii: tuple[float, float], thickness: float
) -> Picture:
    colour = generator.integers(0, 256, 3)
    image = Image.fromarray(np.full((side * _FINE, side * _FINE, 3), colour, np.uint8))
    brush = ImageDraw.Draw(image)
    # Clutter: lines and dots of all colours.
    for _ in range(generator.integers(3, 9)):
        ends = generator.uniform(0, side * _FINE, 4).tolist()
        brush.line(ends, fill=_colour(generator), width=int(thickness * generator.integers(1, 2 * _FINE)))
    for _ in range(generator.integers(5, 20)):
        x, y = generator.uniform(0, side * _FINE, 2).tolist()
        radius = thickness * float(generator.uniform(0.3, 0.9)) * _FINE
        brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_colour(generator))
    shapes: list[Shape] = []
    for _ in range(generator.integers(1, most + 1)):
        for _ in range(20):
            shape = _shape(generator, side, radii)
            if all(_overlap(shape.box, other.box) < 0.05 for other in shapes):
                shapes.append(shape)
                fill = _colour(generator)
                while np.abs(np.array(fill) - colour).sum() < 150:
                    fill = _colour(generator)
                brush.polygon([tuple(point) for point in shape.outline * _FINE], fill=fill)
                break
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32)
    noisy = pixels + generator.normal(0, 6, pixels.shape)
    return Picture(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), tuple(shapes))


def _shape(generator: np.random.Generator, side: int, radii: tuple[float, float]) -> Shape:
    label = int(generator.integers(len(CLASSES)))
    corners = _CORNERS[CLASSES[label]]
    # As many small ones as large ones, by area.
    radius = side * float(np.exp(generator.uniform(*np.log(radii))))
    centre = generator.uniform(radius + 1, side - radius - 1, 2)
    turn = float(generator.uniform(0, 2 * np.pi))
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    return Shape(label, (centre + radius * np.stack((np.cos(angles), np.sin(angles)), 1)).round(2))


def _colour(generator: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = generator.integers(0, 256, 3).tolist()
    return red, green, blue


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Area in both boxes, as a share of the smaller one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(0.0, width) * max(0.0, height) / min(areas)


def divide(pictures: Sequence[Picture], share: float = 0.25) -> dict[str, Sequence[Picture]]:
    """The last pictures are for validation."""
    cut = round(len(pictures) * (1 - share))
    return {"train": pictures[:cut], "val": pictures[cut:]}


def coco(pictures: Sequence[Picture], *, masks: bool = True) -> dict[str, list[dict]]:
    """COCO's annotations of pictures that are called 0001.png and so on."""
    images, annotations = [], []
    for number, picture in enumerate(pictures, 1):
        width, height = picture.image.size
        images.append({"id": number, "file_name": f"{number:04d}.png", "width": width, "height": height})
        for shape in picture.shapes:
            left, top, right, bottom = shape.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": shape.label + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": shape.area,
                    "iscrowd": 0,
                }
                | ({"segmentation": [shape.outline.ravel().tolist()]} if masks else {})
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(folder: Path, pictures: Sequence[Picture], *, masks: bool = True, share: float = 0.25) -> Path:
    """Write annotations/instances_train.json, train/ and the same of val."""
    for split, some in divide(pictures, share).items():
        _write_images(folder / split, some)
        file = folder / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(coco(some, masks=masks)))
    return folder


def write_yolo(folder: Path, pictures: Sequence[Picture], *, masks: bool = False, share: float = 0.25) -> Path:
    """Write data.yaml, images/train, labels/train and the same of val."""
    for split, some in divide(pictures, share).items():
        _write_images(folder / "images" / split, some)
        (folder / "labels" / split).mkdir(parents=True)
        for number, picture in enumerate(some, 1):
            rows = [_row(shape, picture.image.size, masks) for shape in picture.shapes]
            (folder / "labels" / split / f"{number:04d}.txt").write_text("".join(f"{row}\n" for row in rows))
    names = "".join(f"  {label}: {name}\n" for label, name in enumerate(CLASSES))
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return folder


def _row(shape: Shape, size: tuple[int, int], masks: bool) -> str:
    if masks:
        shares = (shape.outline / size).ravel().tolist()
    else:
        left, top, right, bottom = shape.box
        corners = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        shares = [value / size[at % 2] for at, value in enumerate(corners)]
    return " ".join([str(shape.label), *(f"{share:.6f}" for share in shares)])


def write_masks(folder: Path, pictures: Sequence[Picture], *, share: float = 0.25) -> Path:
    """Write images/training, annotations/training and the same of validation: 0 is background, then the classes."""
    for split, some in zip(("training", "validation"), divide(pictures, share).values(), strict=True):
        _write_images(folder / "images" / split, some)
        (folder / "annotations" / split).mkdir(parents=True)
        for number, picture in enumerate(some, 1):
            labels = np.zeros(picture.image.size[::-1], np.uint8)
            for shape in picture.shapes:
                labels[shape.mask(picture.image.width)] = shape.label + 1
            Image.fromarray(labels).save(folder / "annotations" / split / f"{number:04d}.png")
    return folder


def _write_images(folder: Path, pictures: Sequence[Picture]) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, 1):
        picture.image.save(folder / f"{number:04d}.png")


if __name__ == "__main__":
    drawn = draw()
    for name, write in (("coco", write_coco), ("yolo", write_yolo), ("masks", write_masks)):
        sys.stdout.write(f"{write(Path(sys.argv[1]) / name, drawn)}\n")
