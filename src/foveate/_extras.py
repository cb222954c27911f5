"""Optional dependencies: a missing one is reported with the extra that brings it."""

from __future__ import annotations

import importlib.util
from types import ModuleType

__all__ = ["MissingExtraError", "check_installed", "require"]


class MissingExtraError(ImportError):
    """A feature was asked for whose optional dependencies are not installed."""


def check_installed(module: str, *, extra: str) -> None:
    """Raise a `MissingExtraError` if ``module`` is not installed; it is not imported, which may take long."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(
            f"this needs {module!r}, which is not installed; install it with: pip install 'foveate[{extra}]'"
        )


def require(module: str, *, extra: str) -> ModuleType:
    """Import and return ``module``, or raise a `MissingExtraError` that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there, but something that it needs is broken: not ours to rename
        check_installed(module.partition(".")[0], extra=extra)
        raise
