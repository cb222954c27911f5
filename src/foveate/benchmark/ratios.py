"""Median and quartiles of samples, and ratios of samples taken side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Quartiles", "paired_ratios", "quartiles"]


class Quartiles(NamedTuple):
    """Median and quartiles."""

    median: float
    q1: float
    q3: float


def quartiles(values: Iterable[float]) -> Quartiles:
    """Return median and quartiles of at least two values, linear between neighbors."""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Quartiles(median, q1, q3)


def paired_ratios(seconds: Sequence[float], base: Sequence[float]) -> Quartiles:
    """Return median and quartiles of ``seconds[i] / base[i]``, both measured in the same round.

    A disturbance of the machine affects both and leaves their ratio alone: ratios of one round scatter less than the
    ratio of two medians.
    """
    return quartiles(ours / theirs for ours, theirs in zip(seconds, base, strict=True))
