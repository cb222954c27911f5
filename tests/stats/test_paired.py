"""Intervals and p-values against closed forms and plain enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from foveate.stats import mean_score, paired_difference


def answers(seeds: int, images: int, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, seeds, images]).random((seeds, images)) < share


@pytest.mark.parametrize(("images", "share"), [(211, 0.5), (211, 0.93), (1999, 0.85)])
def test_the_interval_of_one_seed_is_that_of_a_binomial(images: int, share: float) -> None:
    # Resampling n zeros and ones with mean m gives exactly Binomial(n, m) / n.
    correct = answers(1, images, share)
    result = mean_score(correct, confidence=0.9)
    mean = correct.mean()
    low, high = binom.ppf([0.05, 0.95], images, mean) / images
    assert result.mean == pytest.approx(mean)
    assert result.low == pytest.approx(low, abs=1.01 / images)  # one step of the lattice: it is simulated
    assert result.high == pytest.approx(high, abs=1.01 / images)


def test_the_unit_is_the_image_not_the_run() -> None:
    correct = answers(1, 307, 0.8)
    once, thrice = mean_score(correct), mean_score(np.repeat(correct, 3, axis=0))
    assert (thrice.mean, thrice.low, thrice.high) == pytest.approx((once.mean, once.low, once.high))
    assert thrice.seed_std == 0
    assert once.seed_std is None


def test_the_spread_over_seeds_is_the_sample_deviation() -> None:
    correct = answers(3, 101, 0.7)
    result = mean_score(correct)
    rows = [sum(map(int, row)) / 101 for row in correct]
    centre = sum(rows) / 3
    assert result.per_seed == pytest.approx(rows)
    assert result.seed_std == pytest.approx(math.sqrt(sum((row - centre) ** 2 for row in rows) / 2))


def test_the_p_value_is_the_enumeration_of_all_signs() -> None:
    for seed in range(6):
        a, b = answers(3, 9, 0.8, seed), answers(3, 9, 0.5, seed + 100)
        difference = [sum(int(x[i]) - int(y[i]) for x, y in zip(a, b, strict=True)) for i in range(9)]
        observed = sum(difference)
        sums = [
            sum(s * d for s, d in zip(signs, difference, strict=True)) for signs in itertools.product((-1, 1), repeat=9)
        ]
        tail = min(sum(t >= observed for t in sums), sum(t <= observed for t in sums)) / len(sums)
        result = paired_difference(a, b)
        assert result.mean == pytest.approx(observed / 27)
        assert result.p_value == pytest.approx(min(1, 2 * tail))


@pytest.mark.slow
def test_with_one_seed_it_is_the_exact_mcnemar_test() -> None:
    images, won, lost = 1501, 61, 35
    a, b = np.zeros((1, images)), np.zeros((1, images))
    a[0, :won] = b[0, won : won + lost] = 1
    tail = sum(math.comb(won + lost, k) for k in range(won, won + lost + 1)) / 2 ** (won + lost)
    assert paired_difference(a, b).p_value == pytest.approx(2 * tail, abs=4 * math.sqrt(2 * tail / 9999))


@pytest.mark.slow
def test_a_paired_interval_is_that_of_the_differences() -> None:
    a = answers(2, 1201, 0.8)
    b = a.copy()
    b[:, :60] = 0  # on the same images otherwise: far narrower than two separate intervals
    result = paired_difference(a, b)
    d = (a.astype(float) - b).mean(axis=0)
    half = 1.96 * d.std() / math.sqrt(len(d))
    assert result.low == pytest.approx(d.mean() - half, abs=half / 10)
    assert result.high == pytest.approx(d.mean() + half, abs=half / 10)
    assert result.p_value == pytest.approx(2 / 10000)  # twice the smallest share that 9999 resamples can give
    assert paired_difference(b, a).mean == -result.mean


def test_equal_networks_do_not_differ() -> None:
    a = answers(2, 50, 0.7)
    result = paired_difference(a, a)
    assert (result.mean, result.low, result.high, result.p_value) == (0, 0, 0, 1)


@pytest.mark.slow
def test_as_many_for_as_against_is_no_difference() -> None:
    """Means over three seeds are rounded; an exact zero must count as no further out than itself."""
    random = np.random.default_rng(0)
    for _ in range(40):
        a = random.integers(0, 2, (3, 12))
        b = np.roll(a, 1, axis=1)
        assert paired_difference(a, b).p_value == 1


def test_all_right_and_all_wrong_have_an_interval() -> None:
    assert (mean_score([[1, 1, 1]]).low, mean_score([[0, 0]]).high, mean_score([[1]]).low) == (1, 0, 1)


@pytest.mark.slow
def test_the_same_input_gives_the_same_output() -> None:
    a, b = answers(2, 400, 0.8), answers(2, 400, 0.75, 1)
    assert paired_difference(a, b, seed=3) == paired_difference(a, b, seed=3)
    assert paired_difference(a, b, seed=3) != paired_difference(a, b, seed=4)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([[1, 0]], [[1, 0, 1]], "same seeds and images; got shapes"),
        ([[1, 0]], [[1, 0], [0, 1]], "paired seeds"),
        ([1, 0], [1, 0], r"scores must be a non-empty \(seeds, images\)"),
        ([[]], [[]], "non-empty"),
        ([[1, 0], [1]], [[1, 0], [1, 0]], "scores must be"),
        ([[1, 0]], [[math.inf, 0]], "reference must hold finite"),
        ([[math.nan, 0]], [[1, 0]], "scores must hold finite"),
        ([[1]], [[0]], "at least 2 test images"),
    ],
)
def test_bad_input_is_named(a: Any, b: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, math.nan])
def test_bad_confidence_is_named(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence must be"):
        mean_score([[1, 0]], confidence=confidence)
