"""Weights in and out: the published parameter names, safetensors and torch files."""

from acmix.checkpoints.files import load_state_dict, load_weights
from acmix.checkpoints.published import from_published, to_published

__all__ = ["from_published", "load_state_dict", "load_weights", "to_published"]
