"""The error over images and seeds: against sums written out, scipy's own test, and the share of intervals that hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from foveate.stats import crossed_by_interval, crossed_difference, holm, paired_difference


def tables(seeds: int, images: int, rng: np.random.Generator, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw two networks that find the same images hard, and differ by seed."""
    hard = rng.normal(size=images)
    draws = []
    for shift in (gain, 0.0):
        seed = rng.normal(scale=0.1, size=(seeds, 1))
        draws.append((rng.normal(size=(seeds, images)) + seed + shift > hard).astype(int))
    return draws[0], draws[1]


def test_the_error_is_that_of_the_sums_written_out() -> None:
    a, b = tables(3, 47, np.random.default_rng(1), gain=0.5)
    found = crossed_difference(a, b, confidence=0.9)
    seeds = [sum(int(x) - int(y) for x, y in zip(*rows, strict=True)) / 47 for rows in zip(a, b, strict=True)]
    images = [sum(int(a[k, i]) - int(b[k, i]) for k in range(3)) / 3 for i in range(47)]
    mean = sum(seeds) / 3
    of_seeds = sum((s - mean) ** 2 for s in seeds) / 2 / 3
    of_images = sum((i - mean) ** 2 for i in images) / 46 / 47
    error = math.sqrt(of_seeds + of_images)
    degrees = (of_seeds + of_images) ** 2 / (of_seeds**2 / 2 + of_images**2 / 46)
    assert found.mean == pytest.approx(mean, abs=1e-15)
    assert found.standard_error == pytest.approx(error, rel=1e-12)
    assert found.dof == pytest.approx(degrees, rel=1e-12)
    low, high = stats.t.interval(0.9, degrees, mean, error)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(mean) / error, degrees), rel=1e-12)
    assert found.minimum_detectable_effect == pytest.approx(
        (stats.t.ppf(0.95, degrees) + stats.t.ppf(0.8, degrees)) * error, rel=1e-12
    )


def test_with_nothing_but_seeds_to_differ_it_is_the_t_test_over_seeds() -> None:
    """Where all images agree within a seed, what is left is scipy's one-sample test of the seeds' differences."""
    right = np.array([[1], [1], [0], [1]]) * np.ones((4, 5), int)
    wrong = np.array([[0], [1], [0], [0]]) * np.ones((4, 5), int)
    found = crossed_difference(right, wrong)
    wanted = stats.ttest_1samp([1.0, 0.0, 0.0, 1.0], 0)
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-12)
    assert found.dof == pytest.approx(3)


@pytest.mark.slow
def test_intervals_hold_the_truth_at_least_as_often_as_they_say() -> None:
    """Two networks of the same kind: the truth is no difference."""
    rng = np.random.default_rng(0)
    found = [crossed_difference(*tables(3, 200, rng)) for _ in range(400)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) >= 0.95
    assert np.mean([one.p_value < 0.05 for one in found]) <= 0.05


def test_networks_that_agree_everywhere_do_not_differ() -> None:
    same = np.array([[1, 0, 1], [0, 0, 1]])
    found = crossed_difference(same, same)
    assert (found.mean, found.standard_error, found.low, found.high, found.p_value) == (0, 0, 0, 0, 1)
    always = crossed_difference(np.ones((2, 3)), np.zeros((2, 3)))
    assert (always.mean, always.low, always.high, always.p_value) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm's own way, by hand
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


BAD = [
    (lambda: crossed_difference([[1, 0]], [[0, 1]]), "cannot be seen with one; train each network with at least 2"),
    (lambda: crossed_difference([[1, 0], [1, 1]], [[0, 1]]), "same seeds and images"),
    (lambda: crossed_difference([[1], [0]], [[0], [0]]), "at least 2 test images; got 1"),
    (lambda: crossed_difference([[1, float("inf")], [0, 1]], [[0, 1], [0, 1]]), "finite"),
    (lambda: crossed_difference([[1, 0], [0, 1]], [[0, 1], [0, 1]], confidence=1), "confidence must be below 1; got 1"),
    (lambda: holm([0.1, 1.5]), "a p-value must be .* at most 1; got 1.5"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_of_a_mean_over_images_an_interval_says_what_the_images_say() -> None:
    a, b = tables(3, 2000, np.random.default_rng(2), gain=0.3)
    wanted, found = crossed_difference(a, b), crossed_by_interval(paired_difference(a, b), images=2000)
    assert found.mean == pytest.approx(wanted.mean, abs=1e-12)
    assert found.standard_error == pytest.approx(wanted.standard_error, rel=0.03)  # the bootstrap's own spread
    assert found.minimum_detectable_effect == pytest.approx(wanted.minimum_detectable_effect, rel=0.1)


def test_one_seed_or_one_image_is_refused() -> None:
    a, b = tables(2, 30, np.random.default_rng(3))
    difference = paired_difference(a, b)
    with pytest.raises(ValueError, match="images"):
        crossed_by_interval(difference, images=1)
    with pytest.raises(ValueError, match="seeds"):
        crossed_by_interval(paired_difference(a[:1], b[:1]), images=30)
