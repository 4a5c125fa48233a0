"""ACmix: convolution and self-attention in one operator, exact and fast.

Importing it loads nothing else; every public name loads what it needs on first use. Networks are in timm's registry as
soon as timm is imported, before or after.
"""

import importlib
from typing import TYPE_CHECKING, Any

from acmix.errors import InputError
from acmix.registration import register_with_timm

if TYPE_CHECKING:
    from acmix import bench, checkpoints, data, explain, export, models, ops, pages, study, surgery, tasks
    from acmix.checkpoints.opening import load
    from acmix.cli.python import train
    from acmix.models import create_model, detection_backbone, segmentation_backbone
    from acmix.nn import ACmix
    from acmix.surgery import fuse, replace_attention, replace_convolutions

__version__ = "0.2.0"
__all__ = [
    "ACmix",
    "InputError",
    "__version__",
    "bench",
    "checkpoints",
    "create_model",
    "data",
    "detection_backbone",
    "explain",
    "export",
    "fuse",
    "load",
    "models",
    "ops",
    "pages",
    "replace_attention",
    "replace_convolutions",
    "segmentation_backbone",
    "study",
    "surgery",
    "tasks",
    "train",
]

# Public names by the modules that they are of, and packages.
_NAMES = {
    "ACmix": "acmix.nn",
    "create_model": "acmix.models",
    "detection_backbone": "acmix.models",
    "fuse": "acmix.surgery",
    "load": "acmix.checkpoints.opening",
    "replace_attention": "acmix.surgery",
    "replace_convolutions": "acmix.surgery",
    "segmentation_backbone": "acmix.models",
    "train": "acmix.cli.python",
}
_PACKAGES = ("bench", "checkpoints", "data", "explain", "export", "models", "ops", "pages", "study", "surgery", "tasks")

register_with_timm()


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"acmix.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'acmix' has no attribute {name!r}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
