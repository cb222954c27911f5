"""How many runs of a comparison go side by side."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from foveate.commands.compare import CompareConfig


def test_unless_told_as_many_as_there_are_cores_for_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    comparing = importlib.import_module("foveate.comparison.compare")  # not the function of that name
    monkeypatch.setattr(comparing, "cores", lambda: 6)

    def jobs(*, small: bool = True, **settings: Any) -> int:
        return comparing._jobs(CompareConfig(models=["conv_resnet_tiny", "test_resnet"], **settings), small)

    assert [jobs(threads=1), jobs(threads=2), jobs(threads=9), jobs()] == [6, 3, 1, 1]
    assert [jobs(small=False, threads=1), jobs(small=False, threads=1, jobs=2)] == [1, 2]
