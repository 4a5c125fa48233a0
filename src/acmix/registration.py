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

    def __init__(self) -> None:
        self._asks_others = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The specification of timm, which may be asked for without an import; None of everything else."""
        if fullname != "timm" or self._asks_others:
            return None
        self._asks_others = True
        try:
            found = importlib.util.find_spec(fullname)
        finally:
            self._asks_others = False
        if found is not None and found.loader is not None:
            execute = found.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _register()

            found.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return found
