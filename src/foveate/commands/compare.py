"""``foveate compare``: several networks under one protocol, with paired seeds, and how sure the differences are."""

from __future__ import annotations

from typing import Any

from foveate.comparison import CompareConfig, compare_networks

__all__ = ["CompareConfig", "run"]


def run(config: CompareConfig) -> dict[str, Any]:
    """Compare the networks; see `foveate.comparison.compare_networks`."""
    return compare_networks(config)
