"""Networks by name, with errors a person can act on."""

from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from acmix.checkpoints import load_weights
from acmix.checkpoints.files import read_state_file
from acmix.errors import InputError
from acmix.models.names import check_name
from acmix.tasks.settings import Settings


def create_network(name: str, *, num_classes: int | None = None, **options: Any) -> nn.Module:
    """Create a network of timm's registry, ours included, with fresh weights.

    Args:
        name: timm's name, `acmix_resnet26` for instance.
        num_classes: Size of the output; None keeps the network's own.
        **options: Arguments of the network that matter if they are not zero or empty: drop_rate, block_args.

    Raises:
        InputError: If there is no such network, or it does not take an argument.
    """
    check_name(name)
    arguments: dict[str, Any] = {key: value for key, value in options.items() if value}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        return timm.create_model(name, **arguments)
    except TypeError as error:
        raise InputError(f"model {name!r} does not take {', '.join(arguments)}: {error}") from error


def prepare_for_training(model: nn.Module, settings: Settings) -> None:
    """Change a network in place as settings ask: activations recomputed, batch norms over all processes.

    Raises:
        InputError: If the network cannot recompute its activations.
    """
    if settings.recompute:
        try:
            cast("Any", model).set_grad_checkpointing()
        except (AttributeError, AssertionError) as error:
            raise InputError(f"model {settings.model!r} cannot recompute activations; leave recompute out") from error
    if settings.synchronize_norms:
        convert_sync_batchnorm(model)


def check_input_size(model: nn.Module, name: str, input_size: tuple[int, int, int]) -> None:
    """Run a network once on zeros `(2, C, H, W)`.

    Raises:
        InputError: If it does not accept that size.
    """
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, *input_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model {name!r} does not accept images of {input_size}: {reason}; choose another size"
        ) from error
    finally:
        model.train(training)


def load_start_weights(model: nn.Module, path: Path) -> str:
    """Load start weights of any trainer, published or ours; heads for another number of classes keep fresh weights.

    Returns:
        What was taken from the file and what was left out, in a sentence.

    Raises:
        InputError: If the file cannot be read or its weights belong to another network; nothing was loaded then.
    """
    configuration: Any = model.pretrained_cfg
    heads = configuration.get("classifier") or ()
    file = read_state_file(path)
    try:
        loaded = load_weights(model, file.tensors, heads=(heads,) if isinstance(heads, str) else heads)
    except ValueError as error:
        raise InputError(f"weights {path} do not fit the model: {error}") from error
    place = f", {file.place}" if file.place else ""
    others = f" (not {', '.join(file.others)})" if file.others else ""
    return f"weights {path}{place}{others}: {loaded}"
