"""What the value of a free option, such as a keyword for a network, may be."""

from __future__ import annotations

__all__ = ["Option"]

Option = bool | int | float | str | list[int] | list[float] | list[str] | None
"""A plain value: nothing in a configuration can name code."""
