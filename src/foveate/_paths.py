"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["expanded"]


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path in which ``~`` stands for a home; where there is no such user, it is part of a file's name."""
    return Path(os.path.expanduser(path))
