"""Means of scores over images with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveate.stats.bootstrap import RESAMPLES, interval

__all__ = ["RESAMPLES", "Estimate", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """Mean score over images, or mean difference of two scores on the same images."""

    mean: float
    low: float
    high: float
    """Ends of the bootstrap interval over images."""
    confidence: float
    images: int
    """Number of images with a score."""


def estimate(
    values: ArrayLike, reference: ArrayLike | None = None, *, confidence: float = 0.95, seed: int = 0
) -> Estimate | None:
    """Return the mean of a score over images with a percentile bootstrap interval; None if no image counts.

    ``values`` has one number per image; NaN is left out. With ``reference``, another method's values for the same
    images in the same order, it is the mean difference, ``values`` minus ``reference``. ``confidence`` is the coverage
    of the interval, ``seed`` that of the resampling.
    """
    scores = _scores("values", values)
    if reference is not None:
        others = _scores("reference", reference)
        if len(scores) != len(others):
            raise ValueError(f"values and reference must be of the same images; got {len(scores)} and {len(others)}")
        scores = scores - others
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return None
    return Estimate(float(scores.mean()), *interval(scores, confidence, seed), confidence, len(scores))


def _scores(name: str, values: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1:
        raise ValueError(f"{name} must be (images,); got shape {scores.shape}")
    return scores
