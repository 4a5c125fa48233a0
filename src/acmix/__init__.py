"""ACmix: convolution and self-attention in one operator, exact and fast.

`import acmix` loads torch alone; names that need more (timm, safetensors) are resolved on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from acmix import ops
from acmix.errors import InputError
from acmix.nn import ACmix

if TYPE_CHECKING:
    from acmix import checkpoints, models
    from acmix.models import create_model

__version__ = "0.1.0"
__all__ = ["ACmix", "InputError", "__version__", "checkpoints", "create_model", "models", "ops"]

_LAZY = {"checkpoints": "acmix.checkpoints", "models": "acmix.models"}


def __getattr__(name: str) -> Any:
    if name == "create_model":
        return importlib.import_module("acmix.models").create_model
    if name in _LAZY:
        return importlib.import_module(_LAZY[name])
    raise AttributeError(f"module 'acmix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
