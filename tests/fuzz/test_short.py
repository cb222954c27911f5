"""Every part of the suite with few trials; `make fuzz` makes the rest."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.fuzz.gadgets import gadgets
from tests.fuzz.parts import PARTS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part.short])
def test_no_bound_is_broken(name: str) -> None:
    part = PARTS[name]
    outcome = part.run(part.short, 1)
    assert outcome.failures == []
    assert outcome.trials >= part.short


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(20))
def test_the_gadgets_are_live(number: int, tmp_path: Path) -> None:
    """By Python's own unpickler each would run: that they do not, is due to how files are loaded."""
    mark = tmp_path / "executed"
    returned = pickle.loads(gadgets(str(mark))[number].pickled())
    for end in ("wait", "close"):  # of a process or file that it started
        if hasattr(returned, end):
            getattr(returned, end)()
            break
    assert list(tmp_path.iterdir())
