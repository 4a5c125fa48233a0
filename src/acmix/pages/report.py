"""Runs as HTML pages that open without a network: one run with all that is known of it, or several side by side."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from acmix import explain
from acmix.checkpoints.classifier import Classifier, load_classifier
from acmix.data import ImageSource, data_record, open_evaluation
from acmix.errors import InputError
from acmix.nn import ACmix
from acmix.pages import figures, html
from acmix.storage import write_atomically
from acmix.tasks.classification.inference import Outcome, classify, tally
from acmix.tasks.comparison import RunComparison
from acmix.tasks.loop import run
from acmix.tasks.loop.progress import PARTS
from acmix.tasks.record import Run, read_run

# Pictures of one kind, images whose layers are looked into, problems of one kind, pairs of classes.
_TILES, _EXAMPLES, _PROBLEMS, _PAIRS = 12, 4, 20, 10
# Images that a problem names, letters of a name in a legend.
_NAMED, _NAME = 5, 40
# How columns are written, beside those of a validation.
_EPOCH_COLUMNS = {
    "epoch": "{:.0f}",
    "train_loss": "{:.4f}",
    "learning_rate": "{:.3e}",
    "seconds": "{:.1f}",
    "images_per_second": "{:.1f}",
} | {f"{part}_seconds": "{:.2f}" for part in PARTS}


@dataclass(frozen=True)
class _Tile:
    """One validation image and what the network made of it."""

    name: str
    picture: str
    truth: str
    prediction: str
    probability: str
    loss: str


@dataclass(frozen=True)
class _Example:
    """One image with the attention of one of its pixels."""

    title: str
    figure: str


def write_report(
    folder: Path,
    output: Path | None = None,
    *,
    data: str | None = None,
    pictures: bool = True,
    workers: int = 0,
    outcomes: Sequence[Outcome] | None = None,
) -> Path:
    """Write the report of a run of `acmix train`, finished or not.

    Args:
        folder: The run folder.
        output: The HTML file; by default report.html in the run folder.
        data: What `acmix.data.open_evaluation` takes, where the data lie now; by default where they lay in training.
        pictures: Classify the validation images with the best checkpoint: confusion matrix, worst and best predictions,
            attention, shares of the paths. Without, a second is enough.
        workers: Processes that read those images; 0 reads in this one.
        outcomes: What the best checkpoint made of the validation images, where training has just found out.

    Returns:
        The file written.

    Raises:
        InputError: If the folder holds no run with a finished epoch, a file of it is damaged, or output lies in no
            folder, or data is given and cannot be used. Without data, images that cannot be found or read are no error:
            the page says why it has no pictures.
    """
    found = read_run(folder)
    output = _checked_output(output or folder / run.REPORT)
    if missing := [name for name in (run.METRICS, run.BEST) if not (folder / name).is_file()]:
        raise InputError(f"{folder} is not a run with a finished epoch: {', '.join(missing)} missing")
    if not found.rows:
        raise InputError(f"{folder / run.METRICS} is damaged: it has no epoch")
    seen = _look(found, data, workers, outcomes) if pictures else {"without_images": _how_to_see(found)}
    if "confusion" not in seen and found.summary is not None:
        seen |= _confusion(found.summary["validation"]["confusion_matrix"], found.config["classes"])
    context: dict[str, Any] = {
        "title": f"{folder.resolve().name} - acmix run report",
        "name": folder.resolve().name,
        "data": data,
        "run": found,
        "config": found.config,
        "rows": found.rows,
        "best": found.best,
        "duration": str(timedelta(seconds=round(sum(row["seconds"] for row in found.rows)))),
        "speed": statistics.median(row["images_per_second"] for row in found.rows),
        "curves": _curves(found),
        "epochs": _epoch_table(found),
        "problems": _problems(found),
        "configuration": _configuration(found),
    }
    empty = dict.fromkeys(("confusion", "confused", "without_images", "mistakes", "hardest", "easiest", "examples"))
    context |= empty | {"paths": None, "shares": []} | seen | _times(found)
    context |= _rates(found, context["shares"])
    _render("report.html", context, output)
    return output


def write_comparison(runs: Sequence[Run], comparison: RunComparison, output: Path) -> Path:
    """Write runs side by side.

    Args:
        runs: The runs.
        comparison: What `acmix.tasks.comparison.compare_runs` made of them.
        output: The HTML file.

    Returns:
        The file written.

    Raises:
        InputError: If output lies in no folder.
    """
    _checked_output(output)
    shown = [(item, name) for item, name in zip(runs, _short_names(runs), strict=True) if item.rows]
    panels = [
        (f"validation {measure.title}{', %' if measure.share else ''}", measure.name, 100 if measure.share else 1)
        for measure in (shown[0][0].measures if shown else ())
        if not measure.optional
    ]
    panels += [("training loss", "train_loss", 1), ("images/s", "images_per_second", 1)]
    curves = [
        html.svg(figures.lines(title, [_line(item, name, column, factor) for item, name in shown]))
        for title, column, factor in panels
        if shown
    ]
    context = {
        "title": f"{len(runs)} runs - acmix",
        "runs": comparison.runs,
        "facts": comparison.facts,
        "differing": comparison.differing,
        "curves": curves,
    }
    _render("compare.html", context, output)
    return output


def _short_names(runs: Sequence[Run]) -> list[str]:
    """Names that fit under a figure: of the folders if they differ, else the ends of their paths."""
    names = [item.folder.resolve().name for item in runs]
    names = names if len(set(names)) == len(names) else [str(item.folder) for item in runs]
    return [name if len(name) <= _NAME else f"...{name[3 - _NAME :]}" for name in names]


def _checked_output(output: Path) -> Path:
    if not output.parent.is_dir():
        raise InputError(f"output {output} cannot be written: {output.parent} is not a folder")
    return output


def _render(template: str, context: dict[str, Any], output: Path) -> None:
    text = html.template(template).render(context)
    try:
        write_atomically(output, text)
    except OSError as error:
        raise InputError(f"output {output} cannot be written: {error.strerror or error}") from error


def _line(found: Run, name: str, column: str, factor: float = 1) -> figures.Line:
    return figures.Line(name, [row["epoch"] for row in found.rows], [factor * row[column] for row in found.rows])


def _curves(found: Run) -> list[str]:
    shares = [_line(found, measure.title, measure.name, 100) for measure in found.measures if measure.share]
    panels = {
        "loss": [_line(found, "training", "train_loss"), _line(found, "validation", "val_loss")],
        "validation accuracy, %": shares,
        "learning rate": [_line(found, "learning rate", "learning_rate")],
    }
    return [html.svg(figures.lines(title, shown)) for title, shown in panels.items()]


def _epoch_table(found: Run) -> list[list[str]]:
    forms = _EPOCH_COLUMNS | {measure.name: "{:.4f}" for measure in found.measures}
    columns = {name: forms[name] for name in found.rows[0] if name in forms}
    heading = [name.removesuffix("_seconds") + ", s" if name.endswith("seconds") else name for name in columns]
    heading = [name.replace("seconds, s", "all, s").replace("_", " ") for name in heading]
    return [heading, *([form.format(row[name]) for name, form in columns.items()] for row in found.rows)]


def _times(found: Run) -> dict[str, Any]:
    """Where the time went, over epochs and in all."""
    parts = {part: [row[f"{part}_seconds"] for row in found.rows] for part in PARTS}
    within = [part for part in PARTS if part != "saving"]
    # Clocks are read one after another: the rest may be a little below zero.
    parts["other"] = [max(0.0, row["seconds"] - sum(row[f"{part}_seconds"] for part in within)) for row in found.rows]
    sums = {part: sum(seconds) for part, seconds in parts.items()}
    total = sum(sums.values())
    table = [(part, f"{seconds:.2f}", f"{100 * seconds / total:.1f} %") for part, seconds in sums.items()]
    figure = figures.stacked_seconds([row["epoch"] for row in found.rows], parts)
    return {"time_figure": html.svg(figure), "times": table}


def _rates(found: Run, shares: Sequence[explain.PathShare]) -> dict[str, Any]:
    """Both rates of every layer over epochs, and the last of them beside what either path adds."""
    layers = list(dict.fromkeys(row["layer"] for row in found.rates))
    if not layers:
        return {"rates": [], "layers": []}
    panels = {"alpha, of attention": "attention", "beta, of convolution": "convolution"}
    own = {name: [row for row in found.rates if row["layer"] == name] for name in layers}
    curves = [
        figures.lines(
            title,
            [
                figures.Line(name, [row["epoch"] for row in rows], [row[path] for row in rows])
                for name, rows in own.items()
            ],
            by_depth=True,
            reference=0.5,
        )
        for title, path in panels.items()
    ]
    table = [["layer", "alpha", "beta"]]
    table += [[name, f"{rows[-1]['attention']:.4f}", f"{rows[-1]['convolution']:.4f}"] for name, rows in own.items()]
    if shares:
        by_name = {layer.layer: layer for layer in shares}
        table[0] += ["size of alpha attention", "size of beta convolution", "share of attention"]
        for cells in table[1:]:
            layer = by_name[cells[0]]
            share = f"{100 * layer.share:.1f} %"
            cells += [f"{layer.attention:.4g}", f"{layer.convolution:.4g}", share]
    return {"rates": [html.svg(curve) for curve in curves], "layers": table}


def _problems(found: Run) -> list[tuple[str, int, list[str]]]:
    """Kind, how many, and the first few in words."""
    counts = Counter(str(problem.get("problem")) for problem in found.problems)
    grouped: list[tuple[str, int, list[str]]] = []
    for kind, count in counts.items():
        first = [problem for problem in found.problems if str(problem.get("problem")) == kind][:_PROBLEMS]
        grouped.append((kind, count, [_in_words(problem) for problem in first]))
    return grouped


def _in_words(problem: dict[str, Any]) -> str:
    parts: list[str] = []
    for name, value in problem.items():
        if isinstance(value, list):
            more = f" and {len(value) - _NAMED} more" if len(value) > _NAMED else ""
            value = ", ".join(map(str, value[:_NAMED])) + more
        if name != "problem" and value not in (None, ""):
            parts.append(f"{name} {value}")
    return "; ".join(parts)


def _configuration(found: Run) -> dict[str, Any]:
    config = found.config
    names = ("images_an_update", "processes", "weights", "updates_an_epoch")
    more = {name.replace("_", " "): config[name] for name in names if config.get(name) is not None}
    versions = {f"version of {name}": version for name, version in config["versions"].items()}
    return config["settings"] | config["data"] | more | config["preprocessing"] | versions


def _how_to_see(found: Run) -> str:
    return f"this page was written in haste when the run stopped; acmix report {found.folder} adds them"


def _look(found: Run, data: str | None, workers: int, outcomes: Sequence[Outcome] | None) -> dict[str, Any]:
    """All that needs the best checkpoint and the validation images, or why it cannot be had."""
    classifier = load_classifier(found.folder / run.BEST)
    try:
        # A run that was resumed knows where the data lie now.
        record = data_record(found.config)
        images = open_evaluation(data or record.location, classifier.classes, record, check_images=False)
        outcomes = list(classify(classifier, images, workers=workers)) if outcomes is None else outcomes
    except InputError as error:
        # From a process that reads images, with its traceback around it.
        reason = str(error).splitlines()[-1].removeprefix("acmix.errors.InputError: ")
        if data is not None:
            raise InputError(reason) from error
        return {"without_images": f"{reason}; if the data have moved, acmix report {found.folder} DATA finds them"}
    mistakes = sorted((item for item in outcomes if not item.right), key=lambda item: -item.probability)
    hardest = sorted(outcomes, key=lambda item: -item.loss)
    easiest = sorted((item for item in outcomes if item.right), key=lambda item: item.loss)
    groups = {"mistakes": mistakes, "hardest": hardest, "easiest": easiest}
    shown = images.with_transform(classifier.transform)
    tiles = {name: [_tile(classifier, shown, item) for item in group[:_TILES]] for name, group in groups.items()}
    matrix = tally(outcomes, classifier.classes).confusion_matrix
    classifier.model.cpu()
    return tiles | _confusion(matrix, classifier.classes) | _look_inside(classifier, shown)


def _tile(classifier: Classifier, images: ImageSource, outcome: Outcome) -> _Tile:
    return _Tile(
        name=images.name(outcome.index),
        picture=html.png(classifier.as_seen(images[outcome.index][0])),
        truth=classifier.classes[outcome.label],
        prediction=classifier.classes[outcome.prediction],
        probability=f"{100 * outcome.probability:.1f} %",
        loss=f"{outcome.loss:.3f}",
    )


def _confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Any]:
    pairs = [
        (count, true, taken)
        for true, row in enumerate(matrix)
        for taken, count in enumerate(row)
        if count and true != taken
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    confused = [
        (classes[true], classes[taken], count, f"{100 * count / sum(matrix[true]):.1f} %")
        for count, true, taken in pairs[:_PAIRS]
    ]
    return {"confusion": html.svg(figures.confusion(matrix, classes)), "confused": confused}


def _look_inside(classifier: Classifier, images: ImageSource) -> dict[str, Any]:
    """Paths of every layer and attention of the first, for a few images that lie evenly over the whole set."""
    count = min(_EXAMPLES, len(images))
    samples = [images[index * len(images) // count] for index in range(count)]
    batch = torch.stack([tensor for tensor, _ in samples])
    inputs = explain.layer_inputs(classifier.model, batch)
    if not inputs:
        return {}
    shares = explain.path_shares(classifier.model, [batch])
    name, features = next(iter(inputs.items()))
    layer = cast(ACmix, classifier.model.get_submodule(name))
    examples = []
    for tensor, (_, label), feature in zip(batch, samples, features, strict=True):
        picture = classifier.as_seen(tensor)
        cell = _brightest_cell(picture, feature, layer.stride[0])
        maps = explain.attention_map(layer, feature[None], cell)[0]
        place = f"row {cell[0]}, column {cell[1]} of the {tuple(feature.shape[1:])} map of {name}"
        title = f"{classifier.classes[label]}: {place}"
        examples.append(_Example(title, html.svg(figures.attention(picture, maps, cell))))
    return {"examples": examples, "shares": shares, "paths": html.svg(figures.path_shares(shares)), "looked_at": count}


def _brightest_cell(picture: Image.Image, feature: Tensor, stride: int) -> tuple[int, int]:
    """The query whose pixels are brightest, a stroke of a digit for instance."""
    height, width = ((size + stride - 1) // stride for size in feature.shape[1:])
    gray = picture.convert("L").resize((width, height), Image.Resampling.BOX)
    place = max(range(height * width), key=gray.tobytes().__getitem__)
    return place // width * stride, place % width * stride
