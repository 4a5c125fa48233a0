"""Networks in timm's registry without importing timm, which takes seconds."""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_with_timm() -> None:
    """Register the networks: at once if timm is imported already, else when it is."""
    if "timm" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterTimm())


def _register() -> None:
    importlib.import_module("acmix.models")


class _AfterTimm(importlib.abc.MetaPathFinder):
    """Finds timm as everything else is found, and registers once it is there."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The specification of timm; None of everything else."""
        if fullname != "timm":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(fullname)
        if found is not None and found.loader is not None:
            execute = found.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register()

            found.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return found
