"""Channels to heads and back."""

from __future__ import annotations

from foveate._checks import integer
from foveate.functional._layout import merge_heads, split_heads

__all__ = ["divisible", "merge_heads", "split_heads"]


def divisible(name: str, channels: int, num_heads: int) -> int:
    """Return ``channels`` if ``num_heads`` divides it, else raise a `ValueError` that names a number that would."""
    integer(name, channels)
    if channels % num_heads:
        heads = [n for n in range(1, channels + 1) if channels % n == 0]
        nearest = min(heads, key=lambda n: abs(n - num_heads))
        raise ValueError(
            f"num_heads={num_heads} does not divide {name}={channels}; num_heads={nearest} would, "
            f"or {name}={max(1, round(channels / num_heads)) * num_heads}"
        )
    return channels
