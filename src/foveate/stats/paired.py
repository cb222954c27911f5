"""Mean scores and paired differences with intervals and p-values, from a score per test image.

Matrices are ``(seeds, images)``; of top-1 accuracy, 1 where an image was right and 0 where it was wrong. **The unit
that is resampled is the test image**: the seeds of an image are averaged first, so that it counts once however many
there are. The interval, with coverage ``confidence``, is the variation with another test set of this size; the
variation with another *seed* is reported beside it, in `MeanScore.per_seed` and `MeanScore.seed_std`. The ``seed`` of a
function is that of its resampling.

Sources: Efron & Tibshirani, *An Introduction to the Bootstrap* (1993), ch. 13 (percentile interval); Good,
*Permutation Tests* (2000), ch. 3 (sign flips of paired differences). Computed by `scipy.stats`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveate.stats.bootstrap import RESAMPLES, at_once, interval

__all__ = ["Difference", "MeanScore", "mean_score", "paired_difference", "paired_matrices", "spread"]


@dataclass(frozen=True)
class MeanScore:
    """Mean score over the test images."""

    mean: float
    """Over images and seeds."""
    low: float
    high: float
    """Ends of the bootstrap interval over test images."""
    confidence: float
    per_seed: tuple[float, ...]
    """Mean score of each seed, in the order of the rows."""
    seed_std: float | None
    """Sample standard deviation over the seeds; None for a single seed."""


@dataclass(frozen=True)
class Difference:
    """Mean score of one network minus that of another on the same images with paired seeds."""

    mean: float
    low: float
    high: float
    """Ends of the bootstrap interval over test images."""
    confidence: float
    p_value: float
    """Two-sided; null hypothesis: for every image either network was equally likely to be the better one."""
    per_seed: tuple[float, ...]
    """Difference for each pair of runs, in the order of the rows."""
    seed_std: float | None
    """Sample standard deviation over the pairs; None for a single pair."""


def mean_score(scores: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> MeanScore:
    """Return the mean of ``scores`` with a percentile bootstrap interval over the images.

    With ``x_i`` the mean over the seeds of the score of image ``i``, the mean is ``Σ x_i / n``; the interval holds the
    central ``confidence`` of the means of `RESAMPLES` samples of ``n`` images drawn with replacement. The percentile
    interval stays defined (a point) where all scores are equal.
    """
    matrix = _matrix("scores", scores)
    low, high = interval(matrix.mean(axis=0), confidence, seed)
    per_seed = matrix.mean(axis=1)
    return MeanScore(float(matrix.mean()), low, high, confidence, tuple(per_seed.tolist()), spread(per_seed))


def paired_difference(
    scores: ArrayLike, reference: ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> Difference:
    """Compare two networks image by image: mean difference, its interval, and a sign-flip permutation p-value.

    Row ``k`` of both matrices was trained with the same seed. With ``d_i`` the mean over the seeds of the score of
    image ``i`` under the first network minus that under the reference, the difference is ``Σ d_i / n``. Its interval
    resamples the ``d_i``. The p-value is twice the share of sign patterns ``s ∈ {−1, 1}ⁿ`` for which ``Σ s_i d_i`` lies
    at least as far out as ``Σ d_i`` on its side, at most 1: over all ``2ⁿ`` patterns if they are no more than
    `RESAMPLES`, else over that many at random with the observed one added to both counts.
    """
    a, b = paired_matrices(scores, reference)
    difference = (a - b).mean(axis=0)
    low, high = interval(difference, confidence, seed)
    from scipy import stats

    test = stats.permutation_test(
        ((a - b).sum(axis=0),),  # of 0 and 1 without rounding, so that what is equal counts as equal
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=at_once(difference),
        rng=np.random.default_rng(seed),
    )
    per_seed = (a - b).mean(axis=1)
    return Difference(
        float(difference.mean()),
        low,
        high,
        confidence,
        float(test.pvalue),
        tuple(per_seed.tolist()),
        spread(per_seed),
    )


def paired_matrices(scores: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both as ``(seeds, images)`` of the same shape, with at least 2 images."""
    a, b = _matrix("scores", scores), _matrix("reference", reference)
    if a.shape != b.shape:
        raise ValueError(
            f"scores and reference must hold the same seeds and images; got shapes {a.shape} and {b.shape}. "
            "Compare runs with paired seeds on one test set"
        )
    if a.shape[1] < 2:
        raise ValueError("a paired comparison needs at least 2 test images; got 1")
    return a, b


def _matrix(name: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        matrix: NDArray[Any] = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)  # ragged: rows of unequal length
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"{name} must be a non-empty (seeds, images) matrix of numbers; got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must hold finite numbers")
    return matrix


def spread(per_seed: NDArray[np.float64]) -> float | None:
    """Return the sample standard deviation over the seeds; None for a single one."""
    return float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None
