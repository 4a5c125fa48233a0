"""Explained images as pictures and one HTML page that opens without a network."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from acmix import explain
from acmix.checkpoints.trained import TrainedNetwork
from acmix.errors import InputError, printable
from acmix.explain.images import ImageExplanation, check_layers, explain_image
from acmix.explain.views import view_of
from acmix.pages import figures, html, theme
from acmix.storage import check_folder, write_atomically

PAGE = "index.html"
_PATHS = "layers.png"
# The page holds all its pictures.
_MOST = 100


@dataclass(frozen=True)
class _Section:
    """What the page says of one image."""

    title: str
    picture: str
    panel: html.Panel
    explanation: ImageExplanation


@dataclass(frozen=True)
class _Row:
    """What the page says of one layer."""

    rates: explain.Rates
    share: explain.PathShare
    change: explain.KernelChange


def check_number(images: int) -> None:
    """Check that a page can hold so many images, before any is explained.

    Raises:
        InputError: If they are too many.
    """
    if images > _MOST:
        raise InputError(f"images must be at most {_MOST}, as one page holds them, got {images}; give fewer at a time")


def write_explanations(
    trained: TrainedNetwork,
    images: Iterable[tuple[Path, Image.Image]],
    folder: Path,
    *,
    pixel: tuple[int, int] | None = None,
    layers: list[str] | None = None,
) -> Path | None:
    """Write a PNG for every image, one of all layers, and a page that holds them.

    Args:
        trained: Of a network with ACmix layers.
        images: RGB images with the files that they come from, at most 100: see `check_number`.
        folder: Is made if it does not exist, with those that it lies in; files of the same names are replaced.
        pixel: Row and column in what the network sees, the centre by default.
        layers: Names of ACmix layers, all by default.

    Returns:
        The page; None where there is no image, and then nothing is written.

    Raises:
        InputError: If the folder cannot be made, there are too many images, or `explain_image` refuses.
    """
    network = view_of(trained).network
    check_layers(network, layers)
    check_folder("folder", folder)
    sections: list[_Section] = []
    for path, image in images:
        check_number(len(sections) + 1)
        explanation = explain_image(trained, image, pixel=pixel, layers=layers)
        folder.mkdir(parents=True, exist_ok=True)
        figure = figures.explanation(explanation.picture, explanation.attention, explanation.evidence)
        write_atomically(folder / f"{len(sections) + 1:03d}-{path.stem[:40]}.png", theme.saved(figure, "png"))
        title, best = printable(path), explanation.scores[0][0]
        label = f"{title}, attention of every head and evidence for {best}, a row a layer"
        panel = html.Panel(
            f"Image {len(sections) + 1}, layer by layer", theme.drawing(figure, label), _note(explanation)
        )
        sections.append(_Section(title, html.png(explanation.picture), panel, explanation))
    if not sections:
        return None
    # One by one, as their sizes may differ.
    batches = (section.explanation.tensor[None] for section in sections)
    rates, shares = explain.rates(network), explain.path_shares(network, batches)
    changes = explain.kernel_changes(network)
    overview, words = figures.paths(shares, rates, changes)
    write_atomically(folder / _PATHS, theme.saved(overview, "png"))
    rows = [_Row(*parts) for parts in zip(rates, shares, changes, strict=True)]
    context = {
        "title": f"{trained.network} - explained images",
        "network": trained.network,
        "sections": sections,
        "overview": html.Panel("The two paths, layer by layer", theme.drawing(overview, words)),
        "heading": [
            "layer",
            "share of attention",
            "alpha",
            "beta",
            "log |alpha / beta|",
            "kernels' distance from shifts",
        ],
        "rows": [_cells(row) for row in rows],
    }
    html.write("explanations.html", context, folder / PAGE)
    return folder / PAGE


def _cells(row: _Row) -> list[str]:
    numbers = (row.rates.attention, row.rates.convolution, row.rates.log_ratio, row.change.distance)
    forms = ("{:.3f}", "{:.3f}", "{:+.3f}", "{:.4f}")
    words = [form.format(number) for form, number in zip(forms, numbers, strict=True)]
    return [row.rates.layer, f"{100 * row.share.share:.0f} %", *words]


def _note(explanation: ImageExplanation) -> str:
    row, column = explanation.attention[0].pixel
    return (
        f"What pixel row {row}, column {column} (framed: its cell) attends to in every head. "
        f"{explanation.attention[0].shown}; brighter is more. "
        f"Last, the evidence for {explanation.scores[0][0]} in the layer's output: red speaks for it, blue against it."
    )
