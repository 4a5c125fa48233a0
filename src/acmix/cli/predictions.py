"""The subcommand that names the classes of images, and what it writes."""

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acmix.cli import lines, outputs
from acmix.errors import InputError, counted, printable

if TYPE_CHECKING:
    from acmix.tasks.loop.results import Prediction

_TABLES = (".csv", ".json")
# Bytes of a file's name that are kept of a longer one, so that there is room for more.
_LONGEST = 200


def predict(
    checkpoint: Path,
    images: list[Path],
    *,
    output: Path | None = None,
    recursive: bool = False,
    top: int | None = None,
    score: float | None = None,
    threshold: float | None = None,
    annotations: Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    json: bool = False,
) -> int:
    """Say what a network makes of images; those that can be read, with exit code 2, if some cannot.

    Args:
        checkpoint: A run folder, a best.safetensors of acmix train, or a folder or .onnx file of acmix export.
        images: Image files; a folder stands for the image files directly in it.
        output: A .csv or .json file for all predictions, or a folder for the pictures with theirs drawn on them; of a
            detector JSON is COCO's results, and lies in the folder, too.
        recursive: A folder stands for the image files at any depth in it.
        top: How many classes an image, of a classifier (default: 5).
        score: The least score of an object, of a detector (default: 0.5).
        threshold: Probability above which a class is a label, where images have any number of them (default: 0.5).
        annotations: COCO's file of the images, whose ids results of a detector have (default: the numbers that files
            are called, else the files).
        batch_size: Images at a time.
        device: auto, cpu, cuda, cuda:1 (any number) or mps.
        json: Print JSON.
    """
    _check(output, images, recursive=recursive, json=json)
    from acmix.cli.display import predictions as display
    from acmix.cli.display import progress

    with progress.working():
        from acmix.checkpoints.opening import load
        from acmix.data.folders import find_images
        from acmix.pages.kinds import part_of
        from acmix.pages.lettering import unwritable
        from acmix.tasks.kinds import KINDS

        trained = load(checkpoint, device=device)
    kind = KINDS[trained.task]
    asked = {"top": top, "score": score, "threshold": threshold, "annotations": annotations}
    options = {name: value for name, value in asked.items() if value is not None}
    kind.check_options(options)
    missing: list[str] = []
    faults: list[str] = []
    files = find_images(images, missing, recursive=recursive, advice=" (--recursive looks into its folders)")
    found = kind.predict(trained, files, faults, batch_size=batch_size, **options)
    found = iter(progress.track(found, "predicting", len(files)))
    first = next(found, None)
    found = itertools.chain([] if first is None else [first], found)
    # An earlier result is not replaced by one of nothing.
    if output is not None and _is_table(output):
        if first is None:
            said = "nothing is written, as no image was read"
        else:
            said = counted(display.write_table(found, output, kind.headings(trained, **options)), "prediction")
        sys.stdout.write(f"{printable(output)}: {said}\n")
    else:
        if output is not None and kind.results is not None and first is not None:
            output.mkdir(parents=True, exist_ok=True)
            found = display.recorded(found, output / kind.results)
        found = found if output is None else _drawn(found, part_of(kind.name).draw, output, images, files)
        display.show_predictions(found, as_json=json)
    if output is not None and not _is_table(output) and (lost := unwritable(trained.classes)):
        lines.warning("acmix predict", lost)
    if output is not None and (not _is_table(output) or output.suffix.lower() == ".json"):
        for note in kind.notes(trained, files, **options):
            # Beside JSON it would be none.
            (sys.stderr if json else sys.stdout).write(f"{note}\n")
    for fault in (*missing, *faults):
        lines.error("acmix predict", fault)
    if len(faults) > 1:
        lines.error("acmix predict", f"{len(faults):,} of {counted(len(files), 'image')} cannot be read")
    return 2 if missing or faults else 0


def _is_table(output: Path) -> bool:
    return output.suffix.lower() in _TABLES and not output.is_dir()


def _check(output: Path | None, images: list[Path], *, recursive: bool, json: bool) -> None:
    if output is None:
        return
    if _is_table(output):
        if json:
            raise InputError(f"--json prints what --output {output} writes; leave one of them out")
        outputs.check_file("--output", output)
        return
    if output.suffix and not output.is_dir():
        raise InputError(f"--output must end in {' or '.join(_TABLES)}, or be a folder without a suffix, got {output}")
    outputs.check_folder("--output", output)
    real = output.resolve()
    for folder in (image for image in images if recursive and image.is_dir()):
        if folder.resolve() in real.parents:
            raise InputError(f"--output {output} lies in {folder}, all of which is read; give a folder outside of it")


def _drawn(
    predictions: "Iterable[Prediction]",
    draw: Callable[[Any, Any], Mapping[str, bytes]],
    folder: Path,
    given: list[Path],
    files: list[Path],
) -> "Iterator[Prediction]":
    """Draw every prediction into a folder, and hand it on; files of these names there, but for the images, go."""
    from acmix.data.images import read_image
    from acmix.storage import write_atomically

    # What is read is never written to; some systems take names that differ in case for one.
    taken = {os.path.realpath(file).casefold() for file in files}
    for prediction in predictions:
        files_of_it = draw(read_image(prediction.path), prediction)
        target = _place(folder, prediction.path, given, taken, [*files_of_it])
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix, content in files_of_it.items():
            write_atomically(target.with_name(target.name + suffix), content)
        yield prediction


def _place(folder: Path, file: Path, given: list[Path], taken: set[str], suffixes: Sequence[str]) -> Path:
    """Where a file's drawings go: where the file lies in the folder that was given, under a name of their own.

    Args:
        folder: Of all drawings.
        file: The image.
        given: What a person gave.
        taken: Where something lies already; gets where these go.
        suffixes: What follows the name.
    """
    within = next((file.relative_to(path) for path in given if path in file.parents), Path(file.name))
    stem = os.fsdecode(os.fsencode(within.stem)[:_LONGEST])
    for name in _names(stem, file.absolute().parent.name):
        target = folder / within.parent / name
        own = {os.path.realpath(f"{target}{suffix}").casefold() for suffix in suffixes}
        if not own & taken:
            taken |= own
            return target
    raise AssertionError("there are names without end")


def _names(stem: str, parent: str) -> Iterator[str]:
    yield stem
    yield f"{stem}-{parent[: _LONGEST // 4]}"
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1
