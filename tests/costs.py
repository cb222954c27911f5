"""Comparisons without what their networks cost, where a test is about something else."""

from __future__ import annotations

import importlib

import pytest

__all__ = ["leave_out_costs"]


def leave_out_costs(patch: pytest.MonkeyPatch) -> None:
    """Have comparisons measure nothing: what it takes of a network, to be built and to compute, is most of their time.

    Their tables have no figures there, as where they cannot be measured.
    """
    unknown = {"parameters": 0, "flops": None, "images_per_second": None, "peak_memory": None}
    comparing = importlib.import_module("foveate.comparison.compare")  # not the function of that name
    patch.setattr(comparing, "measure_costs", lambda config, *_: dict.fromkeys(config.models, unknown))
