"""One update: forward, backward, step and average; or, where numbers are not finite, no trace of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from acmix.tasks.loop import freezing
from acmix.tasks.loop.distribution import shard, summed
from acmix.tasks.loop.optimization import WHOLE, check_state, make_optimizer, make_schedule, stepping
from acmix.tasks.loop.settings import LoopSettings
from acmix.tasks.loop.task import Batch, Task

Timed = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Update:
    """What came of an update.

    Attributes:
        loss: Mean over its images, those of all processes.
        learned: Whether the network has changed; the same in every process.
        fault: What was not finite in this process; None if all was.
        names: Of this process's images.
        told: How many processes had each of the things to tell that `Learner.learn` asked for.
    """

    loss: float
    learned: bool
    fault: Literal["loss", "gradients"] | None
    names: list[str]
    told: list[float]


class Learner:
    """What updates change: a network, its average, the optimiser and float16's scale.

    In float16 the loss is multiplied by a scale, or small gradients would be zero. It is halved when gradients overflow
    and then the same update is learned again, so that no image is lost; it doubles after 2,000 updates without.

    Args:
        fabric: The processes, launched.
        model: The network, the same in every process.
        task: What a batch teaches it.
        settings: The run's settings.
        update_sizes: Images of each update of an epoch, over all processes.
    """

    def __init__(
        self, fabric: Fabric, model: nn.Module, task: Task, settings: LoopSettings, update_sizes: Sequence[int]
    ) -> None:
        self.fabric, self.task, self.settings = fabric, task, settings
        model = fabric.to_device(model)
        self.average: ModelEmaV3 | None = None
        if settings.average_decay is not None:
            # Averages of few updates forget the fresh weights sooner.
            self.average = ModelEmaV3(model, decay=settings.average_decay, use_warmup=True)
            self.average.module = shard(fabric, self.average.module)
        self.model = fabric.setup_module(model)
        learning_rate = settings.scaled_learning_rate(update_sizes[0])
        self._optimizer = make_optimizer(self.model.module, settings, learning_rate)
        self._schedule = make_schedule(self._optimizer, settings, learning_rate, len(update_sizes))
        self._stepping: Any = fabric.setup_optimizers(self._optimizer)
        precision = fabric.strategy.precision
        self._scaler = precision.scaler if isinstance(precision, MixedPrecision) else None

    @property
    def learning_rate(self) -> float:
        """Of the last update; with a layer decay that of the last layer, which has the most."""
        return max(group["lr"] for group in self._optimizer.param_groups)

    @property
    def network(self) -> nn.Module:
        """What is validated and kept: the average, where there is one."""
        return self.model.module if self.average is None else self.average.module

    def train(self) -> None:
        """Put the network into training mode, but for what is frozen."""
        freezing.train(self.model.module)

    def learn(
        self, batches: Iterable[Batch], size: int, number: int, tell: Callable[[], Sequence[bool]], measure: Timed
    ) -> Update:
        """One update.

        Args:
            batches: Those of this process, `settings.accumulate` of them.
            size: Images of the update, over all processes.
            number: Updates before it; what is random depends on it and on the seed.
            tell: What this process has to tell the others, asked when they meet.
            measure: Times a part of the work.
        """
        self._schedule(number)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        if self._scaler is not None:
            # Its images may be wanted once more.
            batches = list(batches)
        loss, names = self._backward(batches, size, number, measure)
        with measure("backward"):
            finite = bool(loss.isfinite())
        sums = torch.tensor([0.0, not finite, *tell()], device=loss.device)
        sums[0] = loss.nan_to_num()
        total, failed, *told = summed(self.fabric, sums).tolist()
        learned = False
        if failed == 0:
            with measure("optimizer"):
                learned = self._step(number)
            if not learned and self._scaler is not None:
                learned = self._learn_smaller(cast("Sequence[Batch]", batches), size, number, buffers, measure)
        if not learned:
            self._put_back(buffers)
        self._stepping.zero_grad()
        fault = "loss" if not finite else None if learned or failed else "gradients"
        return Update(loss=total / self.fabric.world_size, learned=learned, fault=fault, names=names, told=told)

    def _backward(self, batches: Iterable[Batch], size: int, number: int, measure: Timed) -> tuple[Tensor, list[str]]:
        """Add up the gradients of an update; its loss in this process, and the names of the images."""
        # The same however the run came here.
        seed = np.random.SeedSequence([self.settings.seed, number, self.fabric.global_rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        loss = torch.zeros((), device=self.fabric.device)
        names: list[str] = []
        for part, batch in enumerate(batches, 1):
            names += batch.names
            # Processes are averaged: this makes the update the mean over its images, however they are divided.
            weight = len(batch.names) * self.fabric.world_size / size
            with self.fabric.no_backward_sync(self.model, enabled=part < self.settings.accumulate):
                with measure("forward"):
                    part_loss = self.task.loss(self.model, self.fabric.to_device(batch)) * weight
                with measure("backward"):
                    self.fabric.backward(part_loss)
            loss += part_loss.detach().float()
        return loss, names

    def _step(self, number: int) -> bool:
        """Let optimiser and average step, unless gradients are not finite: they are the same in every process."""
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if not (norm.full_tensor() if isinstance(norm, DTensor) else norm).isfinite():
            return False
        if self.settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.settings.clip_norm, norm)
        with stepping(self._optimizer, self.fabric.device):
            self._stepping.step()
        if self.average is not None:
            self.average.update(self.model.module, step=number)
        return True

    def _learn_smaller(
        self, batches: Sequence[Batch], size: int, number: int, buffers: list[Tensor], measure: Timed
    ) -> bool:
        """Halve the scale until an update's gradients are finite; below 1 it is not the scale, which is put back."""
        scaler = cast("torch.amp.GradScaler", self._scaler)
        before = scaler.state_dict()
        while True:
            scale = scaler.get_scale()
            scaler.update()
            # It stays if gradients are finite and their norm alone overflows.
            if not 1 <= scaler.get_scale() < scale:
                scaler.load_state_dict(before)
                return False
            self._put_back(buffers)
            self._stepping.zero_grad()
            self._backward(batches, size, number, measure)
            with measure("optimizer"):
                if self._step(number):
                    return True

    def _put_back(self, buffers: list[Tensor]) -> None:
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def state(self) -> dict[str, Any]:
        """Everything that updates change, whole, on the CPU."""
        content: dict[str, Any] = {
            "precision": self.fabric.strategy.precision.state_dict(),
            "model": get_model_state_dict(self.model.module, options=WHOLE),
            "optimizer": self._optimizer_state(),
        }
        if self.average is not None:
            content["average"] = get_model_state_dict(self.average.module, options=WHOLE)
        return content

    def _optimizer_state(self) -> dict[str, Any]:
        """Of the optimiser, which is left as it was: PyTorch steps one that has not stepped, to see what that makes."""
        fresh = not self._optimizer.state
        groups = [dict(group) for group in self._optimizer.param_groups]
        found: dict[str, Any] = dict(get_optimizer_state_dict(self.model.module, self._optimizer, options=WHOLE))
        if fresh:
            self._optimizer.state.clear()
            found |= {"state": {}}
            for group, before in zip(self._optimizer.param_groups, groups, strict=True):
                group.clear()
                group.update(before)
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was called.

        Raises:
            KeyError: If a part is missing.
            InputError: If it is of another network, or its optimiser has other groups of parameters.
        """
        check_state(self.model.module, self._optimizer, state)
        if state["optimizer"]["state"]:
            set_optimizer_state_dict(self.model.module, self._optimizer, state["optimizer"], options=WHOLE)
        set_model_state_dict(self.model.module, state["model"], options=WHOLE)
        if self.average is not None:
            set_model_state_dict(self.average.module, state["average"], options=WHOLE)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
