"""How many cores and how much memory this process may use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import foveate.comparison
from foveate.benchmark import machine
from foveate.comparison.config import CompareConfig


@pytest.mark.parametrize(("limit", "wanted"), [("1073741824\n", 2**30), ("max\n", None), (None, None)])
def test_memory_is_that_of_the_container(
    limit: str | None, wanted: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr(machine, "MEMORY_MAX", tmp_path / "limit")
    found = machine.memory()
    assert found == wanted if wanted else found > 2**30


def test_no_more_runs_side_by_side_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    compare = sys.modules[foveate.comparison.compare_networks.__module__]
    monkeypatch.setattr(compare, "cores", lambda: 64)
    config = CompareConfig(models=["conv_resnet_tiny"], threads=1)
    for held, jobs in ((2**30, 1), (20 * 2**30, 10), (2**40, 64)):
        monkeypatch.setattr(compare, "memory", lambda held=held: held)
        assert compare._jobs(config, small=True) == jobs
    assert compare._jobs(config, small=False) == 1
