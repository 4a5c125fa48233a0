"""A run as an HTML page that opens without a network, with all that is known of it."""

import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from acmix import explain
from acmix.checkpoints.opening import load
from acmix.errors import InputError
from acmix.pages import figures, html
from acmix.pages.kinds import part_of
from acmix.pages.theme import Drawing
from acmix.progress import Progress, silent
from acmix.shell import command
from acmix.storage import check_file
from acmix.tasks.loop import run
from acmix.tasks.loop.measures import EpochRow, Measure
from acmix.tasks.loop.progress import PARTS
from acmix.tasks.record import Run, read_run

# Problems of one kind that are shown.
_PROBLEMS = 20
# Images that a problem names.
_NAMED = 5
# Columns of the table of epochs, beside those of a validation: what each is called and how it is written.
_EPOCH_COLUMNS = {
    "epoch": ("epoch", "{:.0f}"),
    "train_loss": ("training loss", "{:.4f}"),
    "learning_rate": ("learning rate", "{:.3e}"),
    "images_per_second": ("images/s", "{:.1f}"),
    "seconds": ("all, s", "{:.1f}"),
} | {f"{part}_seconds": (f"{part}, s", "{:.2f}") for part in PARTS}
# Settings that let the training loss be another than that of a validation.
_OTHERS = (
    "loss",
    "class_weights",
    "dice",
    "label_smoothing",
    "loss_threshold",
    "mixup",
    "cutmix",
    "random_erase",
    "drop_rate",
    "drop_path",
)


def write_report(
    folder: Path,
    output: Path | None = None,
    *,
    data: str | None = None,
    pictures: bool = True,
    workers: int = 0,
    device: str = "auto",
    progress: Progress = silent,
    outcomes: Sequence[Any] | None = None,
) -> Path:
    """Write the report of a run of `acmix train`, finished or not.

    Args:
        folder: The run folder, or a checkpoint in it.
        output: The HTML file; by default report.html in the run folder.
        data: What `acmix.data.open_evaluation` takes, where the data lie now; by default where they lay in training.
        pictures: Look at the validation images with the best checkpoint: confusion matrix, worst and best predictions,
            attention, shares of the paths, or what else the kind of training has. Without, a second is enough.
        workers: Processes that read those images; 0 reads in this one.
        device: Where it computes, see `acmix.devices.find_device`.
        progress: Shows how far that is.
        outcomes: What the best checkpoint made of the validation images, where training has just found out.

    Returns:
        The file written.

    Raises:
        InputError: If the folder holds no run with a finished epoch, a file of it is damaged, no file can stand at
            output, or data is given and cannot be used. Without data, images that cannot be found or read are no error:
            the page says why it has no pictures.
    """
    found = read_run(folder)
    folder = found.folder
    output = output or folder / run.REPORT
    check_file("output", output)
    if missing := [name for name in (run.METRICS, run.BEST) if not (folder / name).is_file()]:
        raise InputError(f"{folder} is not a run with a finished epoch: {', '.join(missing)} missing")
    if not found.rows:
        raise InputError(f"{folder / run.METRICS} is damaged: it has no epoch")
    own = part_of(found.kind.name)
    if pictures:
        seen = _look(found, data, workers, device, progress, outcomes)
    else:
        seen = own.known(found) | {"without_images": _how_to_see(found)}
    context: dict[str, Any] = {
        "title": f"{folder.resolve().name} - acmix run report",
        "name": folder.resolve().name,
        "data": data,
        "part": f"report_{found.kind.name}.html",
        "run": found,
        "config": found.config,
        "best": found.best,
        "facts": _facts(found),
        "curves": _curves(found),
        "epochs": _epoch_table(found),
        "problems": _problems(found),
        "configuration": _configuration(found),
    }
    context |= {"paths": None, "shares": [], "contents": own.contents(seen)} | seen | _times(found)
    context |= _rates(found, context["shares"])
    html.write("report.html", context, output)
    return output


def _curves(found: Run) -> list[html.Panel]:
    training, note = _losses(found.config)
    losses = [(training, "train_loss")]
    if "val_loss" in found.rows[0]:
        losses.append(("validation", "val_loss"))
    else:
        note = "Mean over the epoch, while the network learns, on augmented images."
    panels = [html.Panel("Loss", _over_epochs(found, "loss, nats", losses), note)]
    if shares := [(measure.title, measure.name) for measure in found.measures if measure.share]:
        *before, last = (title for title, _ in shares)
        titles = f"{', '.join(before)} and {last}" if before else last
        # An axis has room for two.
        axis = f"validation {titles}, %" if len(shares) < 3 else "validation, %"
        panels.append(html.Panel(f"Validation {titles}", _over_epochs(found, axis, shares, 100)))
    rate = _over_epochs(found, "learning rate", [("learning rate", "learning_rate")])
    return [*panels, html.Panel("Learning rate", rate, "At the end of each epoch.")]


def _over_epochs(found: Run, quantity: str, columns: Sequence[tuple[str, str]], factor: float = 1) -> Drawing:
    return figures.lines(quantity, [figures.over_epochs(title, found.rows, name, factor) for title, name in columns])


def _losses(config: dict[str, Any]) -> tuple[str, str]:
    """What the training loss is called, and how it differs from that of a validation."""
    settings = config["settings"]
    # A validation's is cross-entropy, of several labels that of each.
    usual = "binary_cross_entropy" if config.get("multi_label") else "cross_entropy"
    others = {name: settings[name] for name in _OTHERS if settings.get(name) and settings[name] != usual}
    said = {name: value if isinstance(value, str) else f"{value:g}" for name, value in others.items()}
    changes = [f"{name} {value}".replace("_", " ") for name, value in said.items()]
    mean = "Training: mean over the epoch, while the network learns, on augmented images"
    if not changes:
        return "training", f"{mean}. Validation: after the epoch."
    # A legend is as wide as its picture.
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    return (
        f"training, with {changes[0]}{more}",
        f"{mean}, with {', '.join(changes)}. "
        "Validation: after the epoch, without, so the two are not the same quantity.",
    )


def _facts(found: Run) -> dict[str, str]:
    """What a reader asks first, with the words for it."""
    first, rows = found.measures[0], found.rows
    speed = statistics.median(row["images_per_second"] for row in rows)
    more = {"stopped early": (found.summary or {}).get("stopped_early"), "goes on from": found.origin}
    facts = {
        f"best validation {first.title}, epoch {found.best['epoch']:.0f}": _value(first, found.best),
        "epochs": f"{found.trained} of {found.epochs}",
        "training and validation": str(timedelta(seconds=round(sum(row["seconds"] for row in rows)))),
        "images/s, median": f"{speed:,.0f}",
        "parameters": f"{found.config['parameters'] / 1e6:.2f} M",
    }
    return facts | {words: str(value) for words, value in more.items() if value is not None}


def _value(measure: Measure, row: EpochRow) -> str:
    return f"{100 * row[measure.name]:.2f} %" if measure.share else f"{row[measure.name]:.4f}"


def _epoch_table(found: Run) -> list[list[str]]:
    measures = {each.name: each for each in found.measures}
    names = [name for name in found.rows[0] if name in _EPOCH_COLUMNS or name in measures]
    heading = [
        _EPOCH_COLUMNS[name][0] if name in _EPOCH_COLUMNS else f"validation {measures[name].title}" for name in names
    ]
    return [
        heading,
        *(
            [
                _EPOCH_COLUMNS[name][1].format(row[name]) if name in _EPOCH_COLUMNS else _value(measures[name], row)
                for name in names
            ]
            for row in found.rows
        ),
    ]


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
    return {"time_figure": html.Panel("Time of every epoch by part", figure), "times": table}


def _rates(found: Run, shares: Sequence[explain.PathShare]) -> dict[str, Any]:
    """Both rates of every layer over epochs, and the last of them beside what either path adds."""
    layers = list(dict.fromkeys(row["layer"] for row in found.rates))
    if not layers:
        return {"rates": [], "layers": []}
    own = {name: [row for row in found.rates if row["layer"] == name] for name in layers}
    curves = [
        html.Panel(
            f"Rate {rate} of the {path} path",
            figures.lines(
                f"{rate}, of {path}",
                [figures.over_epochs(name, rows, path) for name, rows in own.items()],
                by_depth=True,
                reference=0.5,
            ),
            "One line a layer; dotted: where fresh layers start.",
        )
        for rate, path in (("alpha", "attention"), ("beta", "convolution"))
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
    return {"rates": curves, "layers": table}


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


def _configuration(found: Run) -> dict[str, dict[str, Any]]:
    """What was asked for, and apart from it what was found and what it ran with."""
    config = found.config
    names = ("images_an_update", "processes", "weights", "updates_an_epoch")
    data = {name: value for name, value in config["data"].items() if not name.endswith("fingerprint")}
    origin = {} if found.origin is None else {"goes on from": str(found.origin)}
    versions = {f"version of {name}": version for name, version in config["versions"].items()}
    fingerprints = {name: value for name, value in config["data"].items() if name not in data}
    parts = {
        "Settings": config["settings"],
        "Data": data | {"training images": config["train_images"], "validation images": config["validation_images"]},
        "Run": {name: config[name] for name in names if config.get(name) is not None} | origin,
        "Preprocessing": config["preprocessing"],
        "Versions and fingerprints": versions | fingerprints,
    }
    return {part: {name: html.as_typed(value) for name, value in values.items()} for part, values in parts.items()}


def _how_to_see(found: Run) -> str:
    return f"this page was written in haste when the run stopped; {command('report', found.folder)} adds them"


def _look(
    found: Run, data: str | None, workers: int, device: str, progress: Progress, outcomes: Sequence[Any] | None
) -> dict[str, Any]:
    """All that needs the best checkpoint and the validation images, or why it cannot be had."""
    own = part_of(found.kind.name)
    trained = load(found.folder / run.BEST, device=device if outcomes is None else "cpu")
    try:
        seen = own.look(found, trained, data, workers=workers, progress=progress, outcomes=outcomes)
    except InputError as error:
        # From a process that reads images, with its traceback around it.
        reason = str(error).splitlines()[-1].removeprefix("acmix.errors.InputError: ")
        if data is not None:
            raise InputError(reason) from error
        where = f"if the data have moved, {command('report', found.folder, 'DATA')} finds them"
        return own.known(found) | {"without_images": f"{reason}; {where}"}
    return seen | {"without_images": None}
