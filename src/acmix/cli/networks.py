"""The subcommands that take a network: what it costs, how good it is, what it says, and for which runtime."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acmix.cli import lines, outputs
from acmix.errors import InputError

if TYPE_CHECKING:
    from acmix.accounting import Account
    from acmix.checkpoints.trained import TrainedNetwork


def info(model: str | None = None, *, image_size: int | None = None, json: bool = False) -> int:
    """Show what a network or a checkpoint is and costs; without one, what is here, for a report of a fault.

    Args:
        model: A network by timm's name, acmix_resnet26 for instance, or a checkpoint (default: none).
        image_size: Side of the square image in pixels (default: the model's own).
        json: Print JSON.
    """
    from acmix.cli.display import information as display
    from acmix.cli.display import progress

    if model is None and image_size is not None:
        raise InputError("--image-size is of a network; name one")
    with progress.working():
        from acmix.bench.environment import environment

        here = environment()
    if model is None:
        display.show_environment(here, as_json=json)
        return 0
    with progress.working():
        costs, trained = _costs(model, image_size)
    display.show_network(model, costs, trained, here, as_json=json)
    return 0


def _costs(model: str, image_size: int | None) -> tuple["Account", "TrainedNetwork | None"]:
    """What a network costs, and the checkpoint that it is of, if it is of one."""
    # timm's own places have a colon: hf-hub:name/of-it.
    is_path = Path(model).exists() or model.endswith((".safetensors", ".onnx")) or ("/" in model and ":" not in model)
    if not is_path:
        from acmix.accounting import account
        from acmix.data import preprocessing_for
        from acmix.tasks.classification.networks import create_network
        from acmix.tasks.loop.trials import check_input_size

        network = create_network(model)
        size = preprocessing_for(network, image_size=image_size)["input_size"]
        check_input_size(network, model, size)
        return account(network, size), None
    from acmix.checkpoints.opening import load_network
    from acmix.tasks.kinds import KINDS

    trained = load_network(model, "acmix info", device="cpu")
    return KINDS[trained.task].cost(trained, image_size), trained


def validate(
    checkpoint: Path,
    data: str,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    check_images: bool = True,
    json: bool = False,
) -> int:
    """Measure a checkpoint on held-out images: the very split of its training, val/, or any other data of its kind.

    Args:
        checkpoint: A run folder, a best.safetensors of acmix train, or a folder or .onnx file of acmix export.
        data: digits, a folder or a CSV file, as in training, or its test/; images that were trained on are left out.
        batch_size: Images at a time.
        workers: Processes that read images.
        device: auto, cpu, cuda, cuda:1 (any number) or mps.
        check_images: Read every image once before.
        json: Print JSON.
    """
    from acmix.cli.display import networks as display
    from acmix.cli.display import progress

    with progress.working():
        from acmix.checkpoints.opening import load
        from acmix.tasks.kinds import KINDS

        trained = load(checkpoint, device=device)
    measured = KINDS[trained.task].measure(
        trained, data, batch_size=batch_size, workers=workers, check_images=check_images, progress=progress.track
    )
    display.show_evaluation(measured, as_json=json)
    return 0


def export(
    checkpoint: Path,
    output: Path,
    *,
    fixed_size: bool = False,
    half: bool = False,
    license: str | None = None,  # noqa: A002  the option's name
) -> int:
    """Write a checkpoint for a runtime: ONNX (.onnx), an exported program (.pt2), or a folder for the hub.

    An ONNX file is run in ONNX Runtime beside PyTorch before it is kept. The suffix of OUTPUT says which is meant.

    Args:
        checkpoint: A run folder, a best.safetensors of acmix train, or a folder of acmix export.
        output: The .onnx or .pt2 file, or a folder that acmix loads, and timm a classifier's.
        fixed_size: One image of the size of its training, not every batch, height and width.
        half: Weights and images in float16; for .onnx and .pt2.
        license: Of the weights, for the card of a folder, cc-by-4.0 for instance (default: the card names none).
    """
    if output.suffix not in ("", ".onnx", ".pt2"):
        raise InputError(f"OUTPUT must end in .onnx or .pt2, or be a folder without a suffix, got {output}")
    if output.suffix and license is not None:
        raise InputError(f"--license is for the card of a folder, OUTPUT is the file {output}")
    if not output.suffix and (half or fixed_size):
        raise InputError(f"--half and --fixed-size are for .onnx and .pt2 files, OUTPUT is the folder {output}")
    if output.suffix:
        outputs.check_file("OUTPUT", output)
    else:
        outputs.check_folder("OUTPUT", output)
    from acmix.cli.display import progress

    with progress.working():
        from acmix.checkpoints.hub import save_pretrained
        from acmix.checkpoints.opening import load_network

        trained = load_network(checkpoint, "acmix export", device="cpu")
    if not output.suffix:
        sys.stdout.write(f"folder: {save_pretrained(trained, output, license=license)}\n")
        return 0
    if trained.task == "detection":
        return _export_detector(trained, output, half=half)
    return _export_file(trained, output, fixed_size=fixed_size, half=half)


def _export_detector(detector: "TrainedNetwork", output: Path, *, half: bool) -> int:
    """Write a detector for one image of one size."""
    from acmix.checkpoints.onnx_files import metadata_of
    from acmix.cli.display import networks as display
    from acmix.cli.display import progress
    from acmix.export import ExportError
    from acmix.export.detector import detector_to_onnx

    if output.suffix != ".onnx":
        raise InputError(f"OUTPUT must end in .onnx for a detector, got {output}")
    if half:
        raise InputError("half is of other networks than detectors, whose boxes need float32; leave it out")
    side: int = detector.preprocessing["image_size"]
    model: Any = detector.model
    try:
        with progress.working("exporting, then running it beside PyTorch"):
            written = detector_to_onnx(model, output, image_size=(side, side), metadata=metadata_of(detector))
    except ExportError as error:
        lines.error("acmix export", error)
        return 1
    display.show_detector(written)
    return 0


def _export_file(trained: "TrainedNetwork", output: Path, *, fixed_size: bool, half: bool) -> int:
    import torch

    from acmix.checkpoints.onnx_files import metadata_of
    from acmix.cli.display import networks as display
    from acmix.cli.display import progress
    from acmix.export import ExportError, to_onnx, to_program
    from acmix.storage import replacing

    network = trained.model.half() if half else trained.model
    options: dict[str, Any] = {"input_size": trained.preprocessing["input_size"], "dynamic": not fixed_size}
    try:
        with progress.working("exporting, then running it beside PyTorch"):
            if output.suffix == ".pt2":
                program, written = to_program(network, **options), None
                with replacing(output) as file:
                    torch.export.save(program, file)
            else:
                written = to_onnx(network, output, metadata=metadata_of(trained), **options)
    except ExportError as error:
        lines.error("acmix export", error)
        return 1
    if written is None:
        sys.stdout.write(f"program: {output}\n")
    else:
        display.show_onnx(written)
    return 0
