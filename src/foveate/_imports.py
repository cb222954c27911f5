"""Modules of users that register networks or tasks, imported by this process and by those that it starts."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["import_again", "import_modules", "imported_names", "known_to_all"]

VARIABLE = "FOVEATE_IMPORT"
"""Environment variable that hands the names on to the processes that train side by side."""


def import_modules(names: Sequence[str]) -> None:
    """Import modules from the working folder or from where Python finds them, here and in processes started later.

    Raises:
        ValueError: There is no such module.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = str(error.name)
            if name != missing and not name.startswith(f"{missing}."):
                raise  # the module is there, but not what it imports
            raise ValueError(
                f"--import: there is no module {name!r} here or where Python looks (PYTHONPATH); give its name without "
                "its folder and without .py"
            ) from error
    if names:
        os.environ[VARIABLE] = ",".join(dict.fromkeys([*imported_names(), *names]))


def import_again() -> None:
    """Import what the process that started this one was told to."""
    import_modules(imported_names())


def known_to_all(module: str) -> bool:
    """Whether every process that is started from here has what ``module`` registers."""
    package = module.partition(".")[0]
    return package in ("timm", "foveate", *(name.partition(".")[0] for name in imported_names()))


def imported_names() -> list[str]:
    """Return the modules that this process was told to import."""
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]
