"""Weights in and out: the published parameter names, safetensors and torch files, checkpoints of other trainers."""

from acmix.checkpoints.files import load_state_dict
from acmix.checkpoints.loading import LoadedWeights, load_weights
from acmix.checkpoints.published import from_published, to_published

__all__ = ["LoadedWeights", "from_published", "load_state_dict", "load_weights", "to_published"]
