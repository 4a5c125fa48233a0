"""ACmix: convolution and self-attention in one operator, exact and fast.

`import acmix` loads torch alone; names that need more (timm, safetensors) are resolved on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from acmix import ops
from acmix.errors import InputError
from acmix.nn import ACmix

if TYPE_CHECKING:
    from acmix import checkpoints, export, models
    from acmix.models import create_model, detection_backbone, segmentation_backbone
    from acmix.surgery import fuse, replace_convolutions

__version__ = "0.1.0"
__all__ = [
    "ACmix",
    "InputError",
    "__version__",
    "checkpoints",
    "create_model",
    "detection_backbone",
    "export",
    "fuse",
    "models",
    "ops",
    "replace_convolutions",
    "segmentation_backbone",
]

# Public names and the modules that they are resolved in, on first use; a module is its own name.
_LAZY = {
    "checkpoints": "acmix",
    "create_model": "acmix.models",
    "detection_backbone": "acmix.models",
    "export": "acmix",
    "fuse": "acmix.surgery",
    "models": "acmix",
    "replace_convolutions": "acmix.surgery",
    "segmentation_backbone": "acmix.models",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'acmix' has no attribute {name!r}")
    home = _LAZY[name]
    return importlib.import_module(f"acmix.{name}") if home == "acmix" else getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
