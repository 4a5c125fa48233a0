"""A page on this machine to try a trained network: drop an image, click a pixel, see what every layer makes of it.

Gradio serves it, to this machine alone and without calling anyone. A dropped file is read once, as an image; what stays
is the network's input.
"""

import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from acmix import explain
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.trained import TrainedNetwork
from acmix.data import data_record, open_evaluation
from acmix.data.bundled import BUNDLED
from acmix.data.images import decode_image, read_bytes
from acmix.errors import InputError
from acmix.explain.views import view_of
from acmix.pages import figures, html, theme
from acmix.pages.kinds import part_of
from acmix.tasks.kinds import KINDS

_LARGEST_UPLOAD = "32mb"
_TOP = 5
# Side of a shown picture: small inputs are enlarged, pixel by pixel, until they have it.
_SHOWN = 448
_FRAME = "#22d3ee"


@dataclass(frozen=True)
class _Seen:
    """An image after its one reading: the network's input, and what does not depend on a pixel.

    Best is the index of the best class, `(1,)`; found is a picture with what was found drawn on it, of a network that
    finds things in places.
    """

    tensor: Tensor
    best: Tensor
    scores: list[tuple[str, float]]
    shares: list[explain.PathShare]
    found: Image.Image | None


class Demo:
    """What the page does, apart from how it looks.

    Args:
        trained: A network with ACmix layers; computes wherever its model is.

    Raises:
        InputError: If the network has no ACmix layer.
    """

    def __init__(self, trained: TrainedNetwork) -> None:
        self.trained, self.view = trained, view_of(trained)
        self.layers = list(explain.operators(self.view.network))
        self._html: Any = html.template("demo.html").module

    def look(self, path: Path) -> _Seen:
        """Read an image, of any size and mode, and let the network answer.

        Raises:
            InputError: If it is not an image.
        """
        image = decode_image(read_bytes(path), path.name)
        tensor = self.view.tensor(image)
        scores, best = self.view.ranked(tensor, _TOP)
        shares = explain.path_shares(self.view.network, [tensor[None]])
        target = torch.tensor([best], device=tensor.device)
        return _Seen(tensor, target, scores, shares, self._find(image, path))

    def _find(self, image: Image.Image, path: Path) -> Image.Image | None:
        """The image with what is in which places, as `acmix predict` draws it; None of a classifier."""
        if isinstance(self.trained, Classifier):
            return None
        (prediction,) = KINDS[self.trained.task].predict(self.trained, [path], [])
        return Image.open(io.BytesIO(part_of(self.trained.task).draw(image, prediction)[".png"]))

    def show_scores(self, seen: _Seen) -> str:
        """The best classes, as HTML."""
        return str(self._html.scores(self.view.title, seen.scores))

    def show_layer(self, seen: _Seen, pixel: tuple[int, int], layer: str) -> tuple[Image.Image, str, str]:
        """The picture with the pixel's cell, the attention of every head with the evidence, and the paths' shares."""
        images, named = seen.tensor[None], explain.operators(self.view.network)
        (part,) = explain.pixel_attention(self.view.network, images, pixel, [layer])
        evidence = explain.class_evidence(self.view.scorer, images, seen.best, named[layer])[0]
        picture = _enlarged(self.view.picture(seen.tensor))
        scale = picture.width / part.size[1]
        top, bottom, left, right = (border * scale for border in part.region)
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=_FRAME, width=3)
        maps = zip(part.weights[0].cpu(), part.pixel_weights[0].cpu(), strict=True)
        tiles = [
            (f"head {head}", f"at most {cells.max():.2f}", html.png(figures.heat(pixels, signed=False, side=_SHOWN)))
            for head, (cells, pixels) in enumerate(maps, 1)
        ]
        pixels = explain.spread(evidence.cpu(), *part.size)
        tiles.append(("evidence", f"for {seen.scores[0][0]}", html.png(figures.heat(pixels, signed=True, side=_SHOWN))))
        cells = " x ".join(map(str, part.weights.shape[-2:]))
        return (
            picture,
            str(self._html.heads(tiles, layer, cells, part)),
            str(self._html.paths(seen.shares, layer)),
        )

    def compare(self, seen: _Seen) -> str:
        """Every backend's answer to the image, and its time, as HTML."""
        rows = []
        for answer in explain.compare_backends(self.view.scorer, seen.tensor[None]):
            best = None
            judged = None if answer.logits is None else self.view.judged(answer.logits[0].float())
            if judged is not None:
                score, index = judged.max(0)
                best = (self.trained.classes[int(index)], float(score))
            rows.append((answer, best))
        return str(self._html.answers(rows))

    def style(self) -> str:
        """The style sheet of the HTML."""
        return str(self._html.style())

    def refusal(self, reason: str) -> str:
        """Why an upload was refused, as HTML."""
        return str(self._html.refusal(reason))


def build_page(demo: Demo, examples: Sequence[Path]) -> gr.Blocks:
    """The page: its parts, and what happens on an upload, a click and a choice of layer; examples lie with uploads."""
    title = demo.trained.network
    with gr.Blocks(title=f"{title} - acmix demo", analytics_enabled=False) as page:
        seen = gr.State()
        gr.Markdown(
            f"# {title}\n"
            "Drop an image. The picture is what the network sees of it: click a pixel or name its row and column, then "
            "move through the layers."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                upload = gr.File(label="Image", height=140, elem_id="upload")
                _take_uploads_only(upload)
                samples = gr.Dataset(
                    label="Or take one that the network was not trained on",
                    components=["image"],
                    samples=[[str(path)] for path in examples],
                    elem_id="examples",
                    visible=bool(examples),
                )
                status = gr.HTML(elem_id="status", padding=False, visible=False)
                picture = gr.Image(
                    show_label=False,
                    alt_text="What the network sees",
                    format="png",
                    interactive=False,
                    buttons=[],
                    elem_id="picture",
                    visible=False,
                )
                with gr.Row(visible=False) as place:
                    row = gr.Number(label="Pixel row", precision=0, minimum=0, min_width=100, elem_id="row")
                    column = gr.Number(label="Pixel column", precision=0, minimum=0, min_width=100, elem_id="column")
                scores = gr.HTML(elem_id="scores", padding=False)
                drawn = gr.Image(
                    show_label=False,
                    alt_text="What the network found",
                    format="png",
                    interactive=False,
                    buttons=[],
                    elem_id="found",
                    visible=False,
                )
            with gr.Column(scale=2, min_width=300):
                layer = gr.Radio(demo.layers, value=demo.layers[0], label="Layer", elem_id="layers")
                heads = gr.HTML(elem_id="heads", padding=False)
                paths = gr.HTML(elem_id="paths", padding=False)
                button = gr.Button("Compare the backends", elem_id="compare", visible=False)
                answers = gr.HTML(elem_id="answers", padding=False)

        def shown(found: _Seen, pixel: tuple[int, int], name: str) -> dict[Any, Any]:
            image, tiles, shares = demo.show_layer(found, pixel, name)
            changed = {picture: gr.Image(image, visible=True), heads: tiles, paths: shares}
            return changed | {place: gr.Row(visible=True), row: pixel[0], column: pixel[1]}

        def opened(path: str | None, name: str) -> dict[Any, Any]:
            blank = {
                seen: None,
                place: gr.Row(visible=False),
                picture: gr.Image(None, visible=False),
                status: gr.HTML("", visible=False),
                button: gr.Button(visible=False),
                drawn: gr.Image(None, visible=False),
            }
            blank |= dict.fromkeys((scores, heads, paths, answers), "")
            if path is None:
                return blank
            try:
                found = demo.look(Path(path))
            except InputError as error:
                return blank | {status: gr.HTML(demo.refusal(str(error)), visible=True)}
            height, width = found.tensor.shape[-2:]
            answer: dict[Any, Any] = {seen: found, scores: demo.show_scores(found), button: gr.Button(visible=True)}
            if found.found is not None:
                answer[drawn] = gr.Image(found.found, visible=True)
            return blank | answer | shown(found, (height // 2, width // 2), name)

        def taken(sample: list[str]) -> str:
            return sample[0]

        def moved(found: _Seen | None, name: str, down: int | None, across: int | None) -> dict[Any, Any]:
            if found is None or down is None or across is None:
                return gr.skip()
            height, width = found.tensor.shape[-2:]
            return shown(found, (min(max(down, 0), height - 1), min(max(across, 0), width - 1)), name)

        def clicked(found: _Seen | None, name: str, point: gr.SelectData) -> dict[Any, Any]:
            if found is None:
                return gr.skip()
            height, width = found.tensor.shape[-2:]
            across, down = (index // _scale(width, height) for index in point.index)
            return moved(found, name, down, across)

        view = [picture, heads, paths, place, row, column]
        everything = [*view, seen, status, scores, drawn, button, answers]
        # One at a time, whoever asks: hooks on the network tell neither threads nor sessions apart.
        event: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "network", "concurrency_limit": 1}
        samples.click(taken, samples, upload, api_visibility="private")
        upload.change(opened, [upload, layer], everything, **event)
        picture.select(clicked, [seen, layer], view, **event)
        for part in (layer, row, column):
            part.input(moved, [seen, layer, row, column], view, **event)
        button.click(demo.compare, seen, answers, **event)
    return page


@contextmanager
def serve(trained: TrainedNetwork, port: int | None = None) -> Iterator[str]:
    """Serve the page to this machine alone while the context lasts.

    Args:
        trained: A network with ACmix layers.
        port: Of 127.0.0.1; the first free one from 7860 on by default.

    Yields:
        The page's address.

    Raises:
        InputError: If the network has no ACmix layer or the port is taken.
    """
    demo = Demo(trained)
    with tempfile.TemporaryDirectory(prefix="acmix-demo-") as uploads:
        # Uploads lie in a folder of their own and go with it; Gradio reads this when the page is built.
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = build_page(demo, _write_examples(trained, Path(uploads)))
        try:
            _, address, _ = page.launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                allowed_paths=[],
                max_file_size=_LARGEST_UPLOAD,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                css=demo.style(),
                # Gradio rewrites the rules of css, and loses those of a scheme.
                head=f"<style>{theme.variables()}</style>",
                # Gradio's own semi-bold font has but two letters.
                theme=gr.themes.Default(primary_hue="orange", neutral_hue="stone", font=("system-ui", "sans-serif")),
            )
        except OSError as error:
            # Gradio tells no more.
            named = f"{port} cannot be used: it is" if port else "7860 and those after it cannot be used: they are"
            raise InputError(f"--port {named} taken, or not open to this user; give another --port") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def _write_examples(trained: TrainedNetwork, folder: Path) -> list[Path]:
    """A held-out image of every class, of a network trained on bundled digits; of others none is at hand."""
    try:
        record = data_record(trained.training)
        if record.location not in BUNDLED:
            return []
        images = open_evaluation(record.location, trained.classes, record, check_images=False)
    except (InputError, ModuleNotFoundError):
        return []
    first: dict[int, Path] = {}
    for index in range(len(images)):
        image, label = images.read(index)
        if label not in first:
            first[label] = folder / images.name(index).replace("/", "-")
            image.save(first[label])
    return [first[label] for label in sorted(first)]


def _take_uploads_only(component: Any) -> None:
    """Refuse an address in place of an uploaded file: Gradio would fetch it."""
    keep = component.async_move_resource_to_block_cache

    async def keep_upload(file: str | Path | None) -> str | None:
        if file is not None and "://" in str(file):
            raise gr.Error("an image must be uploaded, addresses are not fetched")
        return await keep(file)

    component.async_move_resource_to_block_cache = keep_upload


def _scale(width: int, height: int) -> int:
    return max(1, _SHOWN // max(width, height))


def _enlarged(picture: Image.Image) -> Image.Image:
    scale = _scale(*picture.size)
    return picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
