"""Intervals and p-values of statistics that are no means over images, such as mean IoU and mean average precision.

As elsewhere in this package, **the unit that is resampled is the test image**, with all of its seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate import _checks
from foveate.stats.bootstrap import RESAMPLES
from foveate.stats.paired import Difference, MeanScore, spread

__all__ = ["Statistic", "record_difference", "record_score"]

Weights = NDArray[np.float64]
Statistic = Callable[[Sequence[Any]], Callable[[Weights], NDArray[np.float64]]]
"""Makes, of a record per image, a function of weights ``(resamples, images)`` with values ``(resamples,)``.

A weight says how often an image counts; 0 leaves it out.
"""

HELD = 1_000_000  # weights at once


def record_score(
    statistic: Statistic,
    records: Sequence[Sequence[Any]],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> MeanScore:
    """Return the statistic of a test set, averaged over the seeds, with a percentile bootstrap interval over images.

    Args:
        statistic: See `Statistic`.
        records: A row per seed, with a record for each image.
        confidence: Coverage of the interval.
        seed: Of the resampling.
        resamples: How many test sets are drawn.

    Raises:
        ValueError: The rows are empty or of unequal length, or a number is out of its range.
    """
    images = _images(records)
    values = [statistic(row) for row in records]
    per_seed = np.concatenate([value(np.ones((1, images))) for value in values])
    drawn = _resampled(lambda weights: np.mean([value(weights) for value in values], axis=0), images, seed, resamples)
    low, high = _ends(drawn, confidence)
    return MeanScore(float(per_seed.mean()), low, high, confidence, tuple(per_seed.tolist()), spread(per_seed))


def record_difference(
    statistic: Statistic,
    records: Sequence[Sequence[Any]],
    reference: Sequence[Sequence[Any]],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Return by how much the statistics of two networks differ on the same images with paired seeds.

    The interval resamples images, the same for both networks and all seeds. The p-value is that of a permutation test:
    twice the share of random exchanges of the two networks' records, image by image and in all seeds at once, with
    which the difference lies at least as far out on its side, at most 1; the observed one is added to both counts.
    Arguments and errors are as those of `record_score`.
    """
    images = _images(records)
    if [len(row) for row in records] != [len(row) for row in reference]:
        raise ValueError("records and reference must hold the same seeds and images; compare runs with paired seeds")
    if images < 2:
        raise ValueError("a paired comparison needs at least 2 test images; got 1")
    both = [statistic([*own, *other]) for own, other in zip(records, reference, strict=True)]

    def differences(weights: Weights, others: Weights) -> NDArray[np.float64]:
        """Return the seeds' differences ``(seeds, resamples)`` with weights of the own and of the other records."""
        mine, theirs = np.concatenate([weights, others], axis=1), np.concatenate([others, weights], axis=1)
        return np.stack([value(mine) - value(theirs) for value in both])

    def resampled(weights: Weights) -> NDArray[np.float64]:
        return differences(weights, np.zeros_like(weights)).mean(axis=0)

    def exchanged(weights: Weights) -> NDArray[np.float64]:
        return differences(weights, 1 - weights).mean(axis=0)

    per_seed = differences(np.ones((1, images)), np.zeros((1, images)))[:, 0]
    observed = float(per_seed.mean())
    low, high = _ends(_resampled(resampled, images, seed, resamples), confidence)
    flips = _batches(exchanged, images, seed, resamples, lambda random, n: random.integers(0, 2, (n, images)))
    margin = 1e-12
    tails = [int(np.sum(flips >= observed - margin)), int(np.sum(flips <= observed + margin))]
    p_value = min(1.0, 2 * (min(tails) + 1) / (resamples + 1))
    return Difference(observed, low, high, confidence, p_value, tuple(per_seed.tolist()), spread(per_seed))


def _images(records: Sequence[Sequence[Any]]) -> int:
    lengths = {len(row) for row in records}
    if len(lengths) != 1 or not (images := lengths.pop()):
        raise ValueError("records must be a row per seed, all of them with a record for each of the same images")
    return images


def _resampled(value: Callable[[Weights], Any], images: int, seed: int, resamples: int) -> NDArray[np.float64]:
    shares = np.full(images, 1 / images)
    return _batches(value, images, seed, resamples, lambda random, n: random.multinomial(images, shares, n))


def _batches(
    value: Callable[[Weights], Any],
    images: int,
    seed: int,
    resamples: int,
    draw: Callable[[np.random.Generator, int], NDArray[Any]],
) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    left, found = _checks.integer("resamples", resamples), []
    while left:
        n = min(left, max(1, HELD // images))
        found.append(value(draw(random, n).astype(np.float64)))
        left -= n
    return np.concatenate(found)


def _ends(drawn: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    _checks.confidence(confidence)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high
