"""The interval around a mean over images: how much it would move with another set of images of the same size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveate import _checks

__all__ = ["RESAMPLES", "at_once", "interval"]

RESAMPLES = 9999
"""Resamples per interval and per p-value; the smallest p-value that can be reported is 1 / (RESAMPLES + 1)."""

HELD = 4_000_000  # numbers at once while resampling: 32 MB in float64


def interval(values: NDArray[np.float64], confidence: float, seed: int) -> tuple[float, float]:
    """Return the ends of the percentile bootstrap interval of the mean of ``values``, one for each image.

    It holds the central ``confidence`` of the means of `RESAMPLES` samples of as many images, drawn with replacement.
    The same input gives the same output.

    Raises:
        ValueError: ``confidence`` is not between 0 and 1.
    """
    if _checks.number("confidence", confidence, above=0) >= 1:
        raise ValueError(f"confidence must be below 1; got {confidence:g}. For 95 % pass 0.95")
    if np.ptp(values) == 0:  # scipy refuses a single image, and would warn of the rest
        return float(values[0]), float(values[0])
    from scipy import stats  # takes longer to import than all that most runs need of this package

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
