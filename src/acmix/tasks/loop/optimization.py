"""What settings mean for updates: what a network keeps and averages, optimiser and schedule, all of them timm's."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from inspect import signature
from typing import Any, cast

import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import Muon, create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from acmix.errors import InputError, few, in_one_line
from acmix.tasks.loop.freezing import freeze
from acmix.tasks.loop.settings import LoopSettings

# Whole tensors on the CPU, also where processes hold parts.
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def prepare_for_training(model: nn.Module, settings: LoopSettings) -> None:
    """Change a network in place as settings ask: parts frozen, activations recomputed, batch norms over all processes.

    Raises:
        InputError: If the network cannot recompute its activations, or has no such parts; or if the optimiser cannot
            step here, or cannot be resumed.
    """
    _check_optimizer(settings)
    if settings.freeze is not None:
        freeze(model, settings.freeze, settings.model)
    if settings.recompute:
        try:
            cast("Any", model).set_grad_checkpointing()
        except (AttributeError, AssertionError) as error:
            raise InputError(f"model {settings.model!r} cannot recompute activations; leave recompute out") from error
    if settings.synchronize_norms:
        convert_sync_batchnorm(model)


def _check_optimizer(settings: LoopSettings) -> None:
    """Let the optimiser make a step on a tiny network, save its state and go on from it."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    even = replace(settings, layer_decay=None)
    try:
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
            network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2)).to(device)
            optimizer = make_optimizer(network, even, settings.learning_rate)
            network(torch.ones(2, 1, 1, 1, device=device)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            state = get_optimizer_state_dict(network, optimizer, options=WHOLE)
            again = make_optimizer(network, even, settings.learning_rate)
            set_optimizer_state_dict(network, again, state, options=WHOLE)
    except Exception as error:  # optimisers of many authors raise what they like
        reason = in_one_line(error, 120)
        raise InputError(
            f"optimizer {settings.optimizer!r} cannot be used here: it does not step, or cannot be saved to be resumed "
            f"({reason}); sgd, adamw and lamb can"
        ) from error


def make_optimizer(model: nn.Module, settings: LoopSettings, learning_rate: float) -> Optimizer:
    """timm's optimiser without decay on one-axis parameters, rates falling with depth if the settings say so."""
    accepted = signature(get_optimizer_class(settings.optimizer, bind_defaults=False)).parameters
    # One kernel for all parameters, where the optimiser has one; not all of them take parts of parameters.
    whole = not any(isinstance(parameter, DTensor) for parameter in model.parameters())
    options: dict[str, Any] = {"fused": True} if "fused" in accepted and whole else {}
    return create_optimizer_v2(
        model,
        opt=settings.optimizer,
        lr=learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
        **options,
    )


class _InFloat32(TorchFunctionMode):
    """Makes float32 of what would be made bfloat16."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return func(*args, **given | {"dtype": torch.float32} if given.get("dtype") is torch.bfloat16 else given)


def stepping(optimizer: Optimizer, device: torch.device) -> AbstractContextManager[object]:
    """A context for steps of an optimiser: Muon's orthogonalise in bfloat16, for which many CPUs have no products.

    There they took twelve times as long as in float32, and four fifths of the training of a small network.
    """
    return _InFloat32() if isinstance(optimizer, Muon) and device.type == "cpu" else nullcontext()


def check_state(network: nn.Module, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Refuse what another version saved of other tensors, or of other groups of parameters: decayed or not, of rates.

    PyTorch would give a group the options of whichever saved one names a parameter of it last.

    Args:
        network: That is trained.
        optimizer: Its optimiser.
        state: Of `acmix.tasks.loop.learner.Learner`.

    Raises:
        InputError: If they differ.
        KeyError: If a part is missing.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    shapes = [{name: tensor.shape for name, tensor in each.items()} for each in (network.state_dict(), state["model"])]
    if differing := _differing(*shapes):
        what = f"a network of other tensors ({differing})"
    else:
        now = ([names[parameter] for parameter in group["params"]] for group in optimizer.param_groups)
        saved = (group["params"] for group in state["optimizer"]["param_groups"])
        differing = _differing(_by_member(now), _by_member(saved))
        what = f"an optimiser of other groups of parameters ({differing})"
    if differing:
        raise InputError(
            f"the state is of another version of acmix, with {what}; continue with that one, or train anew"
        )


def _by_member(groups: Iterable[Iterable[str]]) -> dict[str, frozenset[str]]:
    """The group that each name is in."""
    return {name: group for group in map(frozenset, groups) for name in group}


def _differing(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """A few of the names of which something else is known."""
    return few(sorted(name for name in {**now, **before} if now.get(name) != before.get(name)))


def make_schedule(
    optimizer: Optimizer, settings: LoopSettings, learning_rate: float, updates_per_epoch: int
) -> Callable[[int], None]:
    """A linear rise and a cosine, as a function that sets the rates for the update after so many."""
    warmup = settings.epochs // 10 if settings.warmup_epochs is None else settings.warmup_epochs
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=settings.epochs,
        warmup_epochs=warmup,
        warmup_lr=learning_rate * settings.warmup_start,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    return scheduler.step_update
