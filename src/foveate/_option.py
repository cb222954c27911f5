"""The type of free options, such as keywords for a network."""

from __future__ import annotations

__all__ = ["Option"]

Option = bool | int | float | str | list[int] | list[float] | list[str] | None
"""A plain value: nothing in a configuration can name code."""
