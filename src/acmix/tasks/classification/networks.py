"""Networks by name, with errors a person can act on."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.func import functional_call

from acmix.accounting import Account, account
from acmix.checkpoints import load_weights
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.files import read_state_file
from acmix.errors import InputError
from acmix.models.names import check_name
from acmix.tasks.loop.settings import LoopSettings


def create_network(name: str, *, num_classes: int | None = None, **options: Any) -> nn.Module:
    """Create a network of timm's registry, ours included, with fresh weights.

    Args:
        name: timm's name, `acmix_resnet26` for instance.
        num_classes: Size of the output; None keeps the network's own.
        **options: Other arguments of the network; None leaves its own, and one that is 0 may be unknown to it: what a
            network does not drop needs no drop_path_rate.

    Raises:
        InputError: If there is no such network, or it does not take an argument.
    """
    check_name(name)
    arguments: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        return timm.create_model(name, **arguments)
    except TypeError as error:
        if 0 in options.values():
            return create_network(
                name, num_classes=num_classes, **{key: value for key, value in options.items() if value}
            )
        raise InputError(f"model {name!r} does not take {', '.join(arguments)}: {error}") from error


def check_input_size(model: nn.Module, name: str, input_size: tuple[int, int, int]) -> None:
    """Run a network once on zeros `(2, C, H, W)`.

    Raises:
        InputError: If it does not accept that size.
    """
    if fault := _fault(model.eval, model, input_size, 2):
        raise InputError(f"model {name!r} does not accept images of {input_size}: {fault}; choose another size")


def check_batch(model: nn.Module, name: str, input_size: tuple[int, int, int], images: int) -> None:
    """Run a network once in training mode where a batch holds one image; batch norm may find one number a channel.

    Raises:
        InputError: If it cannot learn from that batch.
    """
    if images == 1 and (fault := _fault(model.train, model, input_size, images)):
        raise InputError(
            f"model {name!r} cannot learn from a batch of one image of {input_size}: {fault}; take batches of at least "
            "two images, or larger images"
        )


def check_batches(
    model: nn.Module,
    settings: LoopSettings,
    input_size: tuple[int, int, int],
    update_sizes: Sequence[int],
    processes: int,
) -> None:
    """Check the smallest batch that will come, before training, see `check_batch`.

    Args:
        model: As `create_network` made it.
        settings: Of the run.
        input_size: `(C, H, W)` of an image.
        update_sizes: Images of each update of an epoch, over all processes, see `EpochSampler`.
        processes: That share an update.

    Raises:
        InputError: If the network cannot learn from it.
    """
    images = min(update_sizes) // (settings.accumulate * processes)
    together = processes if settings.synchronize_norms else 1
    check_batch(model, settings.network, input_size, images * together)


def _fault(mode: Callable[[], object], model: nn.Module, input_size: tuple[int, int, int], images: int) -> str | None:
    """Why a network in a mode does not take so many images, in a line; the network stays as it is."""
    training = model.training
    # Running statistics change in training.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        mode()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            functional_call(model, buffers, (torch.zeros(images, *input_size),))
    except (RuntimeError, ValueError, AssertionError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    finally:
        model.train(training)
    return None


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


def cost(classifier: Classifier, image_size: int | None = None) -> Account:
    """What a classifier costs, see `acmix.tasks.kinds.Kind.cost`."""
    channels, height, width = classifier.preprocessing["input_size"]
    size = (channels, height, width) if image_size is None else (channels, image_size, image_size)
    check_input_size(classifier.model, classifier.model_name, size)
    return account(classifier.model, size)


def multiply_adds(config: Mapping[str, Any]) -> int | None:
    """Of one image, by a run's config.json; None for a network that cannot be made or counted here."""
    return _multiply_adds(config["settings"]["model"], len(config["classes"]), *config["preprocessing"]["input_size"])


@cache
def _multiply_adds(model: str, classes: int, channels: int, height: int, width: int) -> int | None:
    try:
        network = create_network(model, num_classes=classes)
        return account(network, (channels, height, width)).network.total.multiply_adds
    except (InputError, ValueError):
        return None
