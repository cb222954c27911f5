"""Bootstrap and permutation of statistics that are no means, against plain loops and the means' own functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from foveate.stats import mean_score, paired_difference, record_difference, record_score


def mean_statistic(records: Sequence[float]) -> Any:
    """Return the weighted mean: of a mean, both ways must agree."""
    values = np.asarray(records, np.float64)
    return lambda weights: weights @ values / weights.sum(1)


def ratio_statistic(records: Sequence[Any]) -> Any:
    """Return a ratio of sums, which is no mean over images."""
    values = np.asarray(records, np.float64)
    return lambda weights: (weights @ values[:, 0]) / (weights @ values[:, 1])


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).random((2, 53))


def test_of_a_mean_it_is_that_of_the_mean(scores: np.ndarray) -> None:
    expected, found = mean_score(scores), record_score(mean_statistic, scores.tolist())
    assert (found.mean, *found.per_seed) == pytest.approx((expected.mean, *expected.per_seed))
    assert found.seed_std == pytest.approx(expected.seed_std)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=3e-3)


def test_differences_of_means_too(scores: np.ndarray) -> None:
    others = scores - 0.05 + 0.3 * np.random.default_rng(1).standard_normal(scores.shape)
    expected = paired_difference(scores, others)
    found = record_difference(mean_statistic, scores.tolist(), others.tolist())
    assert (found.mean, *found.per_seed) == pytest.approx((expected.mean, *expected.per_seed))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=5e-3)
    assert found.p_value == pytest.approx(expected.p_value, abs=0.02)


def test_a_ratio_against_a_plain_loop() -> None:
    random = np.random.default_rng(2)
    records = random.integers(1, 20, (1, 7, 2))
    found = record_score(ratio_statistic, records.tolist(), resamples=4000, confidence=0.9)
    ratios = []
    for _ in range(4000):
        top = bottom = 0
        for _ in range(7):
            image = records[0, random.integers(7)]
            top, bottom = top + image[0], bottom + image[1]
        ratios.append(top / bottom)
    assert found.mean == pytest.approx(records[0, :, 0].sum() / records[0, :, 1].sum())
    assert [found.low, found.high] == pytest.approx(np.quantile(ratios, [0.05, 0.95]).tolist(), rel=0.03)
    assert found.seed_std is None


def test_equal_networks_do_not_differ() -> None:
    records = np.random.default_rng(3).integers(1, 9, (2, 11, 2)).tolist()
    found = record_difference(ratio_statistic, records, records, resamples=99)
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("records", "reference", "options", "name"),
    [
        ([], [], {}, "records"),
        ([[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0]], {}, "records"),
        ([[1.0, 2.0]], [[1.0]], {}, "paired"),
        ([[1.0]], [[1.0]], {}, "2"),
        ([[1.0, 2.0]], [[1.0, 3.0]], {"confidence": 1.0}, "confidence"),
        ([[1.0, 2.0]], [[1.0, 3.0]], {"resamples": 0}, "resamples"),
    ],
)
def test_bad_input(records: Any, reference: Any, options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        record_difference(mean_statistic, records, reference, **options)
