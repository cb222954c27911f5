"""The recipes: their texts, what the command line makes of them, and the comments that they begin with."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from foveate.cli import parse_command
from studies._command import parse_study

__all__ = ["COMPARED", "ROOT", "TEXTS", "TRAINED", "configuration", "header", "prepare", "said"]

ROOT = Path(__file__).parents[2]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("recipes/**/*.yaml"))
}
TRAINED = [file for file, text in TEXTS.items() if "model" in yaml.safe_load(text)]
COMPARED = [file for file, text in TEXTS.items() if "models" in yaml.safe_load(text)]


def configuration(file: str) -> Any:
    """Return what the command line makes of a recipe."""
    return copy.deepcopy(_parsed(file))


@functools.cache
def _parsed(file: str) -> Any:
    for module in re.findall(r"--import (\S+)", header(file).get("command", "")):
        importlib.import_module(module)
    if file in TRAINED or file in COMPARED:
        command = "train" if file in TRAINED else "compare"
    else:  # a recipe that trains nothing, for the study that it names
        found = re.search(rf"python -m studies\.(\w+) --config {re.escape(file)}", header(file)["command"])
        assert found is not None
        return parse_study(found[1], ["--config", str(ROOT / file)])
    return parse_command(command, ["--config", str(ROOT / file)])


def header(file: str) -> dict[str, str]:
    """Return the parts of the comment that a recipe begins with: its title, and the others by their names."""
    comment = re.match(r"(?:#.*\n)+", TEXTS[file])
    assert comment is not None, f"{file} does not begin with a comment"
    title, _, parts = comment[0].partition("\n#\n")
    return {"title": title} | {
        name: re.sub(r"\n# *", "\n", part).strip()
        for name, part in re.findall(r"^# (\w+) +(.*\n(?:#  .*\n)*)", parts, re.M)
    }


def said(part: str) -> str:
    """Return a part of a header in one line."""
    return " ".join(part.split())


def prepare(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the script that lays out the data of a recipe; return its exit code."""
    specification = importlib.util.spec_from_file_location("prepare", ROOT / "recipes" / name / "prepare.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr("sys.argv", ["prepare.py", *arguments])
    return module.main()
