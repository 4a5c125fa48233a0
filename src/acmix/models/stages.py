"""What networks of stages share of the surface that timm's networks have."""

from typing import Any

import torch
from timm.layers import get_device_dtype
from torch import Tensor, nn


class StagedNetwork(nn.Module):
    """Stages of blocks, then a linear head.

    Attributes:
        poolings: What `global_pool` may be.
        stages: Each has `grad_checkpointing`, and its blocks in `blocks`.
        head: The classifier, or nothing.
        num_features: Channels that it reads.
    """

    poolings: tuple[str, ...]
    stages: nn.ModuleList
    head: nn.Module
    num_classes: int
    num_features: int
    global_pool: str

    def check_pooling(self, global_pool: str) -> None:
        """Raise ValueError for what is no pooling of the network."""
        if global_pool not in self.poolings:
            raise ValueError(f"global_pool must be one of {self.poolings}, got {global_pool!r}")

    @staticmethod
    def stage_groups(coarse: bool) -> Any:
        """Stages, or their blocks, as `group_matcher` of timm's networks names them."""
        if coarse:
            return r"^stages\.(\d+)"
        return [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^stages\.(\d+)\.\w+", (0,))]

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of blocks in the backward pass."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[bad-argument-type]

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in the place of the old, or none."""
        if global_pool is not None:
            self.check_pooling(global_pool)
            self.global_pool = global_pool
        made: dict[str, Any] = get_device_dtype(self)
        self.num_classes = num_classes
        head = nn.Linear(self.num_features, num_classes, **made) if num_classes else nn.Identity()
        self.head = head.train(self.training)

    def forward_features(self, x: Tensor) -> Tensor:
        """What the head reads, before pooling."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits, or the pooled features."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.forward_head(self.forward_features(x))
