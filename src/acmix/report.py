"""A run as one HTML page that opens without a network: curves, confusion matrix, predictions, attention, rates."""

import base64
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jinja2
import torch
from PIL import Image
from torch import Tensor

from acmix import explain, figures
from acmix.checkpoints.classifier import Classifier, load_classifier
from acmix.data import ImageSource, data_record, open_evaluation
from acmix.errors import InputError
from acmix.nn import ACmix
from acmix.storage import write_atomically
from acmix.tasks import run

_GRID = 24
_ATTENTION_EXAMPLES = 4


@dataclass(frozen=True)
class _Tile:
    """One held-out image in the grid of predictions."""

    picture: str
    truth: str
    prediction: str
    probability: float


@dataclass(frozen=True)
class _Example:
    """One image with the attention of one of its pixels."""

    title: str
    figure: str


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report of a run of `acmix train`, finished or not.

    Args:
        folder: The run folder.
        output: The HTML file; by default report.html in the run folder.

    Returns:
        The file written.

    Raises:
        InputError: If the folder holds no run with a finished epoch, or output lies in no folder.
    """
    output = output or folder / "report.html"
    if not output.parent.is_dir():
        raise InputError(f"output {output} cannot be written: {output.parent} is not a folder")
    if missing := [name for name in (run.CONFIG, run.METRICS, run.BEST) if not (folder / name).is_file()]:
        raise InputError(f"{folder} is not a run with a finished epoch: {', '.join(missing)} missing")
    config = run.read_json(folder / run.CONFIG)
    summary = run.read_json(folder / run.SUMMARY) if (folder / run.SUMMARY).is_file() else None
    classifier = load_classifier(folder / run.BEST)
    rows = _read_metrics(folder / run.METRICS)
    layers = explain.rates(classifier.model)
    context: dict[str, Any] = {
        "name": folder.resolve().name,
        "config": config,
        "summary": summary,
        "rows": rows,
        "best": max(rows, key=lambda row: row["val_top1"]),
        "classifier": classifier,
        "curves": _svg(figures.curves(rows)),
        "rates": _svg(figures.rate_bars(layers)) if layers else None,
        "confusion": None,
        "tiles": [],
        "examples": [],
        "without_images": None,
    }
    if summary is not None:
        matrix = summary["validation"]["confusion_matrix"]
        context["confusion"] = _svg(figures.confusion(matrix, classifier.classes))
    try:
        record = data_record(classifier.training)
        images = open_evaluation(record.location, classifier.classes, record, check_images=False)
    except InputError as error:
        context["without_images"] = str(error)
    else:
        context |= _look_at(classifier, images)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("acmix"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    write_atomically(output, environment.get_template("report.html").render(context))
    return output


def _read_metrics(path: Path) -> list[dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        try:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
    if not rows:
        raise InputError(f"{path} is damaged: it has no epoch")
    return rows


def _look_at(classifier: Classifier, images: ImageSource) -> dict[str, Any]:
    """Predictions of a few images, evenly over the whole set; attention of the first few of them."""
    count = min(_GRID, len(images))
    shown = images.with_transform(classifier.transform)
    samples = [shown[index * len(images) // count] for index in range(count)]
    batch = torch.stack([tensor for tensor, _ in samples])
    with torch.no_grad():
        probabilities = classifier.model(batch).softmax(-1)
    pictures = [_as_seen(classifier, tensor) for tensor in batch]
    tiles = [
        _Tile(
            _png(picture),
            classifier.classes[label],
            classifier.classes[int(row.argmax())],
            float(row.max()),
        )
        for picture, row, (_, label) in zip(pictures, probabilities, samples, strict=True)
    ]
    examples = []
    inputs = explain.layer_inputs(classifier.model, batch[:_ATTENTION_EXAMPLES])
    if inputs:
        name, features = next(iter(inputs.items()))
        layer = cast(ACmix, classifier.model.get_submodule(name))
        for picture, tile, feature in zip(pictures, tiles, features, strict=False):
            cell = _brightest_cell(picture, feature, layer.stride)
            maps = explain.attention_map(layer, feature[None], cell)[0]
            title = f"{tile.truth}: row {cell[0]}, column {cell[1]} of the {tuple(feature.shape[1:])} map of {name}"
            examples.append(_Example(title, _svg(figures.attention(picture, maps, cell))))
    return {"tiles": tiles, "examples": examples}


def _as_seen(classifier: Classifier, tensor: Tensor) -> Image.Image:
    """The picture that the network sees, out of its normalised tensor `(C, H, W)`."""
    mean, deviation = (
        torch.tensor(classifier.preprocessing[key], dtype=tensor.dtype)[:, None, None] for key in ("mean", "std")
    )
    pixels = ((tensor * deviation + mean).clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).convert("RGB")


def _brightest_cell(picture: Image.Image, feature: Tensor, stride: int) -> tuple[int, int]:
    """The query whose pixels are brightest, a stroke of a digit for instance."""
    height, width = ((size + stride - 1) // stride for size in feature.shape[1:])
    gray = picture.convert("L").resize((width, height), Image.Resampling.BOX)
    place = max(range(height * width), key=gray.tobytes().__getitem__)
    return place // width * stride, place % width * stride


def _png(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, format="PNG")
    return _data_address("image/png", data.getvalue())


def _svg(text: str) -> str:
    return _data_address("image/svg+xml", text.encode())


def _data_address(kind: str, data: bytes) -> str:
    """An address that holds its own data: nothing is fetched, and a picture cannot run scripts."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
