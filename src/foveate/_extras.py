"""Optional dependencies: a missing one is reported with the extra that brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["MissingExtraError", "require"]


class MissingExtraError(ImportError):
    """A feature was asked for whose optional dependencies are not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import and return ``module``, or raise a `MissingExtraError` that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there, but something that it needs is broken: not ours to rename
        raise MissingExtraError(
            f"this needs {module!r}, which is not installed; install it with: pip install 'foveate[{extra}]'"
        ) from error
