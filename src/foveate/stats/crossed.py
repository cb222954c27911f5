"""Differences between networks with uncertainty over both test images and seeds, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from foveate import _checks
from foveate.stats.paired import Difference, paired_matrices

__all__ = ["CrossedDifference", "crossed_by_interval", "crossed_difference", "holm"]

POWER = 0.8
"""Probability with which the minimum detectable effect would be found."""


@dataclass(frozen=True)
class CrossedDifference:
    """Difference between the scores of two networks, over images and seeds, as fractions.

    Attributes:
        mean: Mean difference.
        standard_error: Standard error of the mean.
        dof: Degrees of freedom of the standard error.
        low: Lower end of the interval.
        high: Upper end of the interval.
        confidence: Coverage of the interval.
        p_value: Two-sided p-value of Student's test.
        minimum_detectable_effect: Smallest difference found with probability 0.8 at the level 1 − ``confidence``.
    """

    mean: float
    standard_error: float
    dof: float
    low: float
    high: float
    confidence: float
    p_value: float
    minimum_detectable_effect: float


def crossed_difference(correct: ArrayLike, reference: ArrayLike, *, confidence: float = 0.95) -> CrossedDifference:
    """Compare two networks with a standard error over images and seeds together.

    Both matrices are ``(seeds, images)`` of 0 and 1, at least 2 of each; row ``k`` of both has the same seed. With
    ``d_ki`` the difference on image ``i`` of ``n`` with seed ``k`` of ``S``, and ``d_k·``, ``d_·i`` its means over
    images and over seeds,

        standard_error² = s²(d_k·) / S  +  s²(d_·i) / n.

    The interaction of image and seed is in both terms, so the standard error is conservative (as is Owen's *pigeonhole
    bootstrap*, 2007). The interval is Student's with Welch–Satterthwaite degrees of freedom; few seeds widen it. The
    minimum detectable effect is ``(t_{(1+confidence)/2} + t_{0.8}) · standard_error``.
    """
    _checks.confidence(confidence)
    a, b = paired_matrices(correct, reference)
    seeds, images = a.shape
    if seeds < 2:
        raise ValueError("how much a seed changes cannot be seen with one; train each network with at least 2")
    difference = a - b
    mean = float(difference.mean())
    over_seeds = float(difference.mean(axis=1).var(ddof=1)) / seeds
    over_images = float(difference.mean(axis=0).var(ddof=1)) / images
    return _student(mean, over_seeds, seeds, over_images, images, confidence)


def crossed_by_interval(difference: Difference, images: int) -> CrossedDifference:
    """Add what seeds change to a difference whose interval is over images alone, of any statistic.

    As `crossed_difference`, with ``d_k·`` the differences of the seeds, and in place of ``s²(d_·i) / n`` the square of
    half the interval over ``images``, divided by the normal quantile of its confidence. Mean IoU and mAP, which
    `record_difference` compares, are no means over images, but their intervals say how much the images change them.

    Raises:
        ValueError: There are fewer than 2 seeds, or images.
    """
    seeds, values = len(difference.per_seed), np.array(difference.per_seed)
    if min(seeds, _checks.integer("images", images)) < 2:
        raise ValueError(f"a crossed difference needs at least 2 seeds and 2 images; got {seeds} and {images}")
    width = difference.high - difference.low
    over_images = (width / (2 * NormalDist().inv_cdf((1 + difference.confidence) / 2))) ** 2
    over_seeds = float(values.var(ddof=1)) / seeds
    return _student(difference.mean, over_seeds, seeds, over_images, images, difference.confidence)


def _student(
    mean: float, over_seeds: float, seeds: int, over_images: float, images: int, confidence: float
) -> CrossedDifference:
    variance = over_seeds + over_images
    if variance == 0:  # the same everywhere
        return CrossedDifference(mean, 0.0, math.inf, mean, mean, confidence, float(mean == 0), 0.0)
    standard_error = math.sqrt(variance)
    dof = variance**2 / (over_seeds**2 / (seeds - 1) + over_images**2 / (images - 1))
    from scipy import stats

    student = stats.t(dof)
    quantile = float(student.ppf((1 + confidence) / 2))
    return CrossedDifference(
        mean,
        standard_error,
        dof,
        mean - quantile * standard_error,
        mean + quantile * standard_error,
        confidence,
        float(2 * student.sf(abs(mean) / standard_error)),
        (quantile + float(student.ppf(POWER))) * standard_error,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons by Holm's step-down procedure.

    The chance that any true null hypothesis has an adjusted p-value of at most α is at most α, whatever their
    dependence (Holm 1979): ``max_{j ≤ i} min(1, (m − j + 1) p_(j))`` for the i-th smallest of ``m``.
    """
    for value in p_values:
        _checks.number("a p-value", value, minimum=0, maximum=1)
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
