"""The page for those who come from 0.1: what it says is gone is gone, and what it points to is there."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import foveate
from foveate_cli import COMMANDS

PAGE = (Path(__file__).parents[1] / "docs" / "from-0.1.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(foveate[. ][^`]+)` \| (.*?) \|$", PAGE, re.M)
MOVED = [(old, new) for old, new in ROWS if old.startswith("foveate.")]
COMMANDS_MOVED = [(old, new) for old, new in ROWS if old.startswith("foveate ")]


def find(name: str) -> Any:
    """Import what a dotted name stands for."""
    module, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("old", "new"), MOVED)
def test_names_moved(old: str, new: str) -> None:
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        find(old)
    for name in re.findall(r"`((?:foveate|studies)[\w.]+)`", new):
        find(name)


@pytest.mark.parametrize(("old", "new"), COMMANDS_MOVED)
def test_commands_moved(old: str, new: str) -> None:
    assert old.split()[1] not in COMMANDS or old == "foveate shards bench"
    module = re.search(r"`python -m (studies\.\w+)`", new)
    assert module is not None
    assert importlib.util.find_spec(f"{module[1]}.__main__") is not None


def test_the_page_lists_them() -> None:
    assert len(MOVED) > 15
    assert len(COMMANDS_MOVED) >= 5


def test_the_version_has_an_entry() -> None:
    changes = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.M)[1] == foveate.__version__  # type: ignore[index]
