"""Whether a detector's layers answer in finite numbers: of others nothing is found, as if nothing were there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# What torchvision's heads call the layers that answer.
_LAST = {"cls_logits", "bbox_reg", "bbox_ctrness", "bbox_pred", "cls_score", "mask_fcn_logits"}


@contextmanager
def watched_answers(network: nn.Module) -> Iterator[list[Tensor]]:
    """Look at all answers that a network computes within the context.

    Yields:
        Of each answer so far whether a number of it is not finite, `()`, bool, where it was computed.
    """
    lost: list[Tensor] = []

    def look(_module: nn.Module, _inputs: Any, answer: Tensor) -> None:
        lost.append(~answer.isfinite().all())

    last = [part for name, part in network.named_modules() if name.rpartition(".")[2] in _LAST]
    hooks = [part.register_forward_hook(look) for part in last]
    try:
        yield lost
    finally:
        for hook in hooks:
            hook.remove()


def any_lost(lost: list[Tensor]) -> bool:
    """Whether one of the answers is not finite; a graph in a runtime lets nobody look at its."""
    return bool(torch.stack(lost).any()) if lost else False
