"""The `acmix` command: typed functions become subcommands.

A command is a function in `_COMMANDS`. Its parameters become arguments: those without a default are positional (a
list takes one or more), `False` becomes a flag, the rest are options; the docstring's Args are the help. jsonargparse
checks the types. Bad usage and bad input end with exit code 2 and one line on stderr; Ctrl-C ends with 130.
"""

import argparse
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

import acmix
from acmix import cli_bench, cli_data
from acmix.errors import InputError

# What each extra of the package installs, by the name that is imported.
_EXTRAS = {
    "train": {"lightning", "torchmetrics", "tensorboard", "sklearn", "matplotlib", "jinja2"},
    "data": {"datasets", "pyarrow", "fsspec", "aiohttp"},
    "export": {"onnx", "onnxscript", "onnxruntime", "onnx_ir"},
}


def info(model: str, *, input_size: int | None = None, json: bool = False) -> int:
    """Count a network's parameters and multiply-adds by part, beside the same network with convolutions.

    Args:
        model: timm's name of the network, acmix_resnet26 for instance.
        input_size: Side of the square image in pixels (default: the model's own).
        json: Print JSON.
    """
    import torch

    from acmix import display, ops
    from acmix.accounting import account
    from acmix.data import preprocessing_for
    from acmix.tasks.networks import check_input_size, create_network

    network = create_network(model)
    size = preprocessing_for(network, image_size=input_size)["input_size"]
    check_input_size(network, model, size)
    display.show_account(model, account(network, size), as_json=json)
    kernels = {"cpu": "compiled CPU"} | ({"triton": "Triton"} if torch.cuda.is_available() else {})
    for backend, kind in kernels.items():
        missing = ops.why_not(backend)
        if missing is not None and not json:
            sys.stdout.write(f"the {kind} kernels are missing, portable takes their place: {missing}\n")
    return 0


def train(
    data: str,
    *,
    model: str | None = None,
    epochs: int = 30,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    optimizer: str = "adamw",
    warmup_epochs: int | None = None,
    label_smoothing: float = 0.1,
    image_size: int | None = None,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    seed: int = 0,
    val_fraction: float = 0.2,
    deterministic: bool = False,
    output: Path | None = None,
    resume: bool = False,
    weights: Path | None = None,
    workers: int | None = None,
    check_images: bool = True,
) -> int:
    """Train a classifier on a folder of images, or on digits.

    Args:
        data: A folder with train/ and val/ of class folders, one folder of class folders, or digits.
        model: timm's name of the network (default: acmix_resnet14_small for digits, acmix_resnet26 for folders).
        epochs: Passes over the training images.
        batch_size: Images an update.
        lr: Highest learning rate; a cosine takes it to zero.
        weight_decay: Of weights; biases, norms and the operator's rates are not decayed.
        optimizer: timm's name of the optimiser.
        warmup_epochs: Epochs of linear rise (default: a tenth of the epochs).
        label_smoothing: Share of the target spread over all classes.
        image_size: Side of the input in pixels (default: the model's own).
        precision: float32, or mixed precision in bfloat16 or float16.
        seed: Of weights, order, augmentation and the split.
        val_fraction: Share held out where DATA has no validation folder.
        deterministic: Refuse operations without a deterministic implementation.
        output: The run folder (default: the next free runs/DATA-MODEL).
        resume: Continue the unfinished run in --output; repeat its other options.
        weights: Start weights, of acmix train or published.
        workers: Processes that read images (default: one a core, at most 8; none for digits).
        check_images: Read every image once before training starts.
    """
    from acmix import display
    from acmix.tasks.classification import Settings, fit
    from acmix.tasks.run import free_folder

    if resume and output is None:
        raise InputError("--resume needs --output, the folder of the run to continue")
    model = model or ("acmix_resnet14_small" if data == "digits" else "acmix_resnet26")
    output = output or free_folder(Path("runs"), f"{Path(data).resolve().name}-{model}")
    settings = Settings(
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=lr,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        label_smoothing=label_smoothing,
        image_size=image_size,
        precision=precision,
        seed=seed,
        val_fraction=val_fraction,
        deterministic=deterministic,
    )
    result = fit(
        data,
        settings,
        output,
        resume=resume,
        weights=weights,
        workers=workers,
        check_images=check_images,
        progress=sys.stderr.isatty() and sys.stdout.isatty(),
        on_epoch=lambda row: display.show_epoch(row, epochs),
    )
    display.show_training(result, data)
    return 0


def validate(
    checkpoint: Path,
    data: str,
    *,
    batch_size: int = 64,
    workers: int = 0,
    check_images: bool = True,
    json: bool = False,
) -> int:
    """Measure a checkpoint on held-out images: the very split of its training, val/, or any other class folders.

    Args:
        checkpoint: A best.safetensors or last.safetensors of acmix train.
        data: digits or a folder, as in training; images that were trained on are left out.
        batch_size: Images at a time.
        workers: Processes that read images.
        check_images: Read every image once before.
        json: Print JSON.
    """
    from acmix import display
    from acmix.checkpoints.classifier import load_classifier
    from acmix.data import data_record, open_evaluation
    from acmix.tasks.inference import evaluate

    classifier = load_classifier(checkpoint)
    record = data_record(classifier.training)
    images = open_evaluation(
        data, classifier.classes, record, check_images=check_images, progress=sys.stderr.isatty() and not json
    )
    evaluation = evaluate(classifier, images, batch_size=batch_size, workers=workers)
    display.show_evaluation(evaluation, as_json=json)
    return 0


def predict(checkpoint: Path, images: list[Path], *, top: int = 5, json: bool = False) -> int:
    """Name the most probable classes of images; exit code 1 if some cannot be read.

    Args:
        checkpoint: A best.safetensors or last.safetensors of acmix train.
        images: Image files; a folder stands for the image files directly in it.
        top: How many classes an image.
        json: Print JSON.
    """
    from acmix import display
    from acmix.checkpoints.classifier import load_classifier
    from acmix.tasks.inference import predict as predict_images

    predictions = predict_images(load_classifier(checkpoint), images, top=top)
    display.show_predictions(predictions.predicted, as_json=json)
    for line in predictions.unreadable:
        sys.stderr.write(f"acmix predict: {line}\n")
    return 1 if predictions.unreadable else 0


def report(run: Path, *, output: Path | None = None) -> int:
    """Write the report of a run as one HTML page that opens without a network.

    Args:
        run: The run folder of acmix train, finished or not.
        output: The HTML file (default: report.html in the run folder).
    """
    from acmix.report import write_report

    sys.stdout.write(f"report: {write_report(run, output)}\n")
    return 0


def export(checkpoint: Path, output: Path, *, fixed_size: bool = False, half: bool = False) -> int:
    """Write a checkpoint for a runtime: ONNX (.onnx), an exported program (.pt2), or a folder for the hub.

    An ONNX file is run in ONNX Runtime beside PyTorch before it is kept. The suffix of OUTPUT says which is meant.

    Args:
        checkpoint: A best.safetensors or last.safetensors of acmix train.
        output: The .onnx or .pt2 file, or a folder that timm and acmix load.
        fixed_size: One image of the size of its training, not every batch, height and width.
        half: Weights and images in float16; for .onnx and .pt2.
    """
    from acmix import display
    from acmix.checkpoints.classifier import load_classifier

    if output.suffix not in ("", ".onnx", ".pt2"):
        raise InputError(f"OUTPUT must end in .onnx or .pt2, or be a folder without a suffix, got {output}")
    if not output.suffix:
        if half or fixed_size:
            raise InputError(f"--half and --fixed-size are for .onnx and .pt2 files, OUTPUT is the folder {output}")
        from acmix.checkpoints.hub import save_pretrained

        sys.stdout.write(f"folder: {save_pretrained(load_classifier(checkpoint), output)}\n")
        return 0
    if not output.parent.is_dir():
        raise InputError(f"{output} cannot be written: {output.parent} is not a folder; make it first")
    classifier = load_classifier(checkpoint)
    network = classifier.model.half() if half else classifier.model
    size = classifier.preprocessing["input_size"]
    if output.suffix == ".pt2":
        import torch

        from acmix.export.program import to_program
        from acmix.storage import replacing

        program = to_program(network, input_size=size, dynamic=not fixed_size)
        with replacing(output) as file:
            torch.export.save(program, file)
        sys.stdout.write(f"program: {output}\n")
        return 0
    from acmix.export import ExportError, to_onnx

    metadata = {"classes": classifier.classes, "preprocessing": classifier.preprocessing}
    try:
        written = to_onnx(network, output, input_size=size, dynamic=not fixed_size, metadata=metadata)
    except ExportError as error:
        sys.stderr.write(f"acmix export: error: {error}\n")
        return 1
    display.show_onnx(written)
    return 0


# Commands, and groups of commands.
_COMMANDS: dict[str, Any] = {
    "info": info,
    "train": train,
    "validate": validate,
    "predict": predict,
    "report": report,
    "export": export,
    "bench": {"layer": cli_bench.layer, "model": cli_bench.model, "scaling": cli_bench.scaling},
    "data": {"check": cli_data.check, "shard": cli_data.shard},
}
_GROUPS = {
    "bench": "Measure the operator and networks on this machine, beside what they replace.",
    "data": "Check images before training, and write them as shards.",
}


def build_parser() -> ArgumentParser:
    """Make the parser: one subcommand a function."""
    parser = ArgumentParser(
        prog="acmix",
        description=acmix.__doc__.splitlines()[0] if acmix.__doc__ else None,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"acmix {acmix.__version__}")
    _add_commands(parser, "acmix", _COMMANDS)
    return parser


def _add_commands(parser: ArgumentParser, program: str, commands: dict[str, Any]) -> None:
    subcommands = parser.add_subcommands(
        dest="command", metavar="COMMAND", description=f"Each has its own help: {program} COMMAND --help"
    )
    for name, content in commands.items():
        group = isinstance(content, dict)
        summary = _GROUPS[name] if group else (inspect.getdoc(content) or "").splitlines()[0]
        command = ArgumentParser(description=summary, exit_on_error=False, allow_abbrev=False)
        if not group:
            _add_parameters(command, content)
        # jsonargparse wants a group in its place before it gets its commands.
        subcommands.add_subcommand(name, command, help=summary)
        command.prog = f"{program} {name}"
        if group:
            _add_commands(command, command.prog, content)


def _add_parameters(parser: ArgumentParser, function: Callable[..., int]) -> None:
    helps = dict(re.findall(r"^    (\w+): (.*)$", inspect.getdoc(function) or "", re.MULTILINE))
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        option, hint, text = f"--{name.replace('_', '-')}", hints[name], helps[name]
        if parameter.default is inspect.Parameter.empty:
            many = typing.get_origin(hint) is list
            shape: dict[str, Any] = {"nargs": "+", "type": typing.get_args(hint)[0]} if many else {"type": hint}
            parser.add_argument(name, help=text, metavar="IMAGE" if many else name.upper(), **shape)
        elif parameter.default is False:
            parser.add_argument(option, action="store_true", help=text)
        elif parameter.default is None:
            parser.add_argument(option, type=hint, default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(option, type=hint, default=parameter.default, help=text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 done in part, 2 bad usage or input, 130 stopped with Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    named = _named(arguments)
    program = " ".join(("acmix", *named))
    try:
        values, chosen = build_parser().parse_args(arguments), _COMMANDS
        while isinstance(chosen, dict):
            chosen, values = chosen[values.command], values[values.command]
        return chosen(**vars(values))
    except argparse.ArgumentError as error:
        return _fail(program, f"{_readable(str(error), named)}; see {program} --help")
    except InputError as error:
        return _fail(program, str(error))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        for extra, packages in _EXTRAS.items():
            if missing in packages:
                return _fail(program, f"this needs {error.name}; install it with: pip install 'acmix[{extra}]'")
        raise
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{program}: stopped\n")
        return 130
    except BrokenPipeError:
        # The reader of the output has gone, head for instance; keep Python from complaining again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _named(arguments: Sequence[str]) -> list[str]:
    """The command that the arguments name, group first."""
    names: list[str] = []
    commands: Any = _COMMANDS
    for argument in arguments:
        if isinstance(commands, dict) and argument in commands:
            names.append(argument)
            commands = commands[argument]
    return names


def _readable(message: str, commands: Sequence[str]) -> str:
    """jsonargparse's message in the words of the command line: no key paths, no Python types."""
    message = re.sub(
        r'^Parser key "([\w.]+)": ', lambda found: f"--{found[1].replace('_', '-')}: ", " ".join(message.split())
    )
    message = re.sub(r"<class '(\w+)'>", r"\1", message).removesuffix(".")
    return message.replace(f"{'.'.join(commands)}.", "") if commands else message


def _fail(program: str, message: str) -> int:
    sys.stderr.write(f"{program}: error: {' '.join(message.split())}\n")
    return 2
