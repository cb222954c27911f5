"""Medians, quartiles and paired ratios against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from foveate.benchmark import paired_ratios, quartiles


@pytest.mark.parametrize("number", [2, 3, 4, 5, 15, 16])
def test_quartiles_are_numpys(number: int) -> None:
    values = np.random.default_rng(number).lognormal(size=number)
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    assert quartiles(values.tolist()) == pytest.approx((median, q1, q3), rel=1e-14)


@pytest.mark.parametrize("number", [3, 8, 15])
def test_ratios_pair_the_rounds(number: int) -> None:
    rng = np.random.default_rng(number)
    load = rng.uniform(1, 20, size=number)  # of the machine, the same for both within a round
    ours, theirs = 3 * load * rng.normal(1, 0.01, number), load * rng.normal(1, 0.01, number)
    found = paired_ratios(ours.tolist(), theirs.tolist())
    q1, median, q3 = np.quantile(ours / theirs, [0.25, 0.5, 0.75])
    assert found == pytest.approx((median, q1, q3), rel=1e-14)
    assert found.q3 - found.q1 < 0.2  # however the load changed


def test_rounds_that_are_missing_are_not_made_up() -> None:
    with pytest.raises(ValueError):
        paired_ratios([1.0, 2.0, 3.0], [1.0, 2.0])
