"""What a network is asked before training: does it take such images, and the smallest batch that will come?"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call

from acmix.errors import InputError, first_line
from acmix.tasks.loop.settings import LoopSettings


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
        model: With fresh or start weights.
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
        return first_line(error)
    finally:
        model.train(training)
    return None
