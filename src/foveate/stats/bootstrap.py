"""Bootstrap interval of a mean over images: its variation with another set of images of the same size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveate import _checks

__all__ = ["RESAMPLES", "at_once", "interval"]

RESAMPLES = 9999
"""Resamples per interval and per p-value; the smallest possible p-value, of two sides, is 2 / (RESAMPLES + 1)."""

HELD = 4_000_000  # numbers at once while resampling: 32 MB in float64


def interval(values: NDArray[np.float64], confidence: float, seed: int) -> tuple[float, float]:
    """Return the ends of the percentile bootstrap interval of the mean of ``values``, one per image.

    It holds the central ``confidence`` of the means of `RESAMPLES` samples of as many images, drawn with replacement;
    ``seed`` makes it reproducible.
    """
    _checks.confidence(confidence)
    if np.ptp(values) == 0:  # scipy refuses a single image, and warns of equal values
        return float(values[0]), float(values[0])
    from scipy import stats  # slow to import

    ends = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=at_once(values),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(ends.low), float(ends.high)


def at_once(values: NDArray[np.float64]) -> int:
    """Return how many resamples of ``values`` to hold in memory at a time."""
    return max(1, HELD // len(values))
