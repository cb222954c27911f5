"""How sure a difference is when both the test images and the seeds could have been others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from foveate import _checks
from foveate.stats.paired import paired_matrices

__all__ = ["CrossedDifference", "crossed_difference", "holm"]

POWER = 0.8
"""Of the smallest effect that an experiment would have seen."""


@dataclass(frozen=True)
class CrossedDifference:
    """A difference of two networks, over images and seeds.

    Attributes:
        mean: The difference of the accuracies, a fraction.
        error: Its standard error.
        degrees: Degrees of freedom of that error.
        low: Lower end of the interval.
        high: Upper end.
        confidence: Coverage of the interval.
        p_value: Two-sided, of Student's test.
        detectable: The smallest difference that would be seen, at the level 1 − ``confidence``, with probability 0.8.
    """

    mean: float
    error: float
    degrees: float
    low: float
    high: float
    confidence: float
    p_value: float
    detectable: float


def crossed_difference(correct: ArrayLike, reference: ArrayLike, *, confidence: float = 0.95) -> CrossedDifference:
    """Compare two networks with an error for other images and other seeds together.

    With ``d_ki`` the difference on image ``i`` of ``n`` with seed ``k`` of ``S``, and ``d_k·``, ``d_·i`` its means over
    images and over seeds,

        error² = s²(d_k·) / S  +  s²(d_·i) / n.

    What is due to an image and a seed together is in both terms, so that the error errs on the safe side (as the
    bootstrap of rows and columns at once does: Owen 2007, *The pigeonhole bootstrap*). The interval is Student's, with
    degrees of freedom by Welch and Satterthwaite: few seeds make it wide. The smallest detectable effect is
    ``(t_{(1+confidence)/2} + t_{0.8}) · error``.

    Args:
        correct: ``(seeds, images)`` of 0 and 1.
        reference: The same for the other network; row ``k`` of both was trained with the same seed.
        confidence: Coverage of the interval, between 0 and 1.

    Raises:
        ValueError: The matrices differ in shape or are not as described, there is but one seed or image, or
            ``confidence`` is not between 0 and 1.
    """
    if _checks.number("confidence", confidence, above=0) >= 1:
        raise ValueError(f"confidence must be below 1; got {confidence:g}. For 95 % pass 0.95")
    a, b = paired_matrices(correct, reference)
    seeds, images = a.shape
    if seeds < 2:
        raise ValueError("how much a seed changes cannot be seen with one; train each network with at least 2")
    difference = a - b
    mean = float(difference.mean())
    over_seeds = float(difference.mean(axis=1).var(ddof=1)) / seeds
    over_images = float(difference.mean(axis=0).var(ddof=1)) / images
    variance = over_seeds + over_images
    if variance == 0:  # the same everywhere
        return CrossedDifference(mean, 0.0, math.inf, mean, mean, confidence, float(mean == 0), 0.0)
    error = math.sqrt(variance)
    degrees = variance**2 / (over_seeds**2 / (seeds - 1) + over_images**2 / (images - 1))
    from scipy import stats

    student = stats.t(degrees)
    quantile = float(student.ppf((1 + confidence) / 2))
    return CrossedDifference(
        mean,
        error,
        degrees,
        mean - quantile * error,
        mean + quantile * error,
        confidence,
        float(2 * student.sf(abs(mean) / error)),
        (quantile + float(student.ppf(POWER))) * error,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number: Holm's step-down procedure, as adjusted p-values.

    The chance that any true null hypothesis has an adjusted p-value of at most α is at most α, whatever their
    dependence (Holm 1979): ``max_{j ≤ i} min(1, (m − j + 1) p_(j))`` for the i-th smallest of ``m``.

    Raises:
        ValueError: One is not between 0 and 1.
    """
    for value in p_values:
        _checks.number("a p-value", value, minimum=0, maximum=1)
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
