"""Intervals over seeds against textbook formulas, changed images against plain arithmetic, collected similarity."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from foveate.explain.map_similarity import correlation, half_maximum_iou
from foveate.functional import warp
from studies.stability.measures import VARIANT, MapSimilarities, combined, mild_variant, over_seeds


def test_of_single_seeds_it_is_students_interval() -> None:
    values = {(0,): 0.2, (1,): 0.5, (4,): 0.35, (7,): 0.4}
    found = over_seeds(values, confidence=0.9)
    assert found is not None
    sample = np.array(list(values.values()))
    low, high = stats.t.interval(0.9, 3, sample.mean(), stats.sem(sample))
    assert (found.mean, found.low, found.high) == pytest.approx((sample.mean(), low, high))
    assert (found.seeds, found.confidence) == (4, 0.9)


def test_of_pairs_each_seed_is_left_out_in_turn() -> None:
    """The jackknife by its pseudo-values, for the mean over pairs of seeds."""
    seeds = (0, 1, 2, 3)
    values = {pair: math.sin(3.0 * pair[0] + pair[1]) for pair in itertools.combinations(seeds, 2)}
    found = over_seeds(values)
    assert found is not None
    whole = np.mean(list(values.values()))
    without = [np.mean([value for pair, value in values.items() if seed not in pair]) for seed in seeds]
    pseudo = np.array([4 * whole - 3 * left for left in without])
    reach = stats.t.ppf(0.975, 3) * pseudo.std(ddof=1) / 2
    assert (found.mean, found.low, found.high) == pytest.approx((whole, whole - reach, whole + reach))


def test_pairs_that_share_seeds_count_for_less_than_single_ones() -> None:
    """The interval covers what it should: the mean of products of seeds drawn from a normal distribution."""
    rng = np.random.default_rng(0)
    covered = {"pairs": 0, "as if independent": 0}
    for _ in range(400):
        drawn = rng.normal(1.0, 0.5, 4)
        values = {(a, b): float(drawn[a] * drawn[b]) for a, b in itertools.combinations(range(4), 2)}
        found = over_seeds(values)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered["pairs"] += found.low <= 1.0 <= found.high
        sample = list(values.values())
        low, high = stats.t.interval(0.95, 5, np.mean(sample), stats.sem(sample))
        covered["as if independent"] += low <= 1.0 <= high
    assert covered["pairs"] > 0.9 * 400
    assert covered["as if independent"] < 0.85 * 400


def test_too_few_seeds_have_no_interval() -> None:
    for values in ({(3,): 0.7}, {(0, 1): 0.7}, {(0,): 0.7, (1,): math.nan}):
        found = over_seeds(values)
        assert found is not None
        assert (found.mean, found.low, found.high) == (0.7, None, None)
    assert over_seeds({}) is None
    assert over_seeds({(0,): math.nan}) is None
    with pytest.raises(ValueError, match="confidence must be below 1"):
        over_seeds({(0,): 1.0}, confidence=95)


def test_figures_are_combined_seed_by_seed() -> None:
    together = combined([{(0,): 1.0, (1,): 2.0}, {(0,): 3.0, (1,): math.nan, (2,): 5.0}])
    assert together == {(0,): 2.0, (1,): 2.0, (2,): 5.0}
    assert math.isnan(combined([{(0,): math.nan}])[(0,)])


def test_a_variant_is_warped_and_recoloured() -> None:
    mean, std = (0.4, 0.5, 0.3), (0.2, 0.3, 0.25)
    pixels = torch.rand(50, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    offset, unit = (torch.tensor(values)[:, None, None] for values in (mean, std))
    images = (pixels - offset) / unit
    changed, similarity = mild_variant(images, mean=mean, std=std, generator=torch.Generator().manual_seed(2))
    again, _ = mild_variant(images, mean=mean, std=std, generator=torch.Generator().manual_seed(2))
    assert torch.equal(changed, again)
    limits = torch.tensor([2 * VARIANT["shift"]] * 2 + [math.radians(VARIANT["rotation"]), math.log(VARIANT["scale"])])
    logs = torch.cat([similarity[:, :3], similarity[:, 3:].log()], dim=1).abs()
    assert (logs <= limits * (1 + 1e-5)).all()
    assert (logs.amax(0) > 0.8 * limits).all()

    found = changed * unit + offset
    assert found.min() > -1e-6
    assert found.max() < 1 + 1e-6
    plain = warp(pixels, similarity)
    contrasts, brightnesses = [], []
    for before, after in zip(plain, found, strict=True):
        grey = float(before.mean())
        free = (after > 1e-4) & (after < 1 - 1e-4)  # not cut
        # after = brightness · grey + brightness · contrast · (before − grey), a straight line
        slope, value_at_zero = np.polyfit((before - grey)[free].double().numpy(), after[free].double().numpy(), 1)
        residual = after[free] - slope * (before - grey)[free] - value_at_zero
        assert residual.abs().max() < 1e-5
        brightnesses.append(value_at_zero / grey)
        contrasts.append(slope / brightnesses[-1])
    for factors in (np.log(contrasts), np.log(brightnesses)):
        assert np.abs(factors).max() <= math.log(VARIANT["colour"]) + 1e-4
        assert np.abs(factors).max() > 0.8 * math.log(VARIANT["colour"])
        assert factors.min() < 0 < factors.max()
    assert abs(np.corrcoef(contrasts, brightnesses)[0, 1]) < 0.5


def test_similarity_is_collected_by_seeds_with_what_chance_gives() -> None:
    draw = torch.Generator().manual_seed(0)
    collected = MapSimilarities()
    expected: dict[str, dict[tuple[int, ...], list[float]]] = {}
    for seeds in ((0, 1), (0, 2)):
        for size in (4, 3):
            maps, others = torch.rand(2, size, 5, 7, generator=draw)
            where = torch.rand(size, 5, 7, generator=draw) < 0.7
            others[0] = 0.5  # flat
            collected.add(seeds, maps, others, where)
            for prefix, row in (("", lambda i: i), ("chance_", lambda i, n=size: (i + 1) % n)):
                for name, measure in (("correlation", correlation), ("iou", half_maximum_iou)):
                    found = [measure(maps[[i]], others[[row(i)]], where[[i]]).item() for i in range(size)]
                    expected.setdefault(prefix + name, {}).setdefault(seeds, []).extend(found)
    means = collected.means()
    assert means.keys() == expected.keys()
    for name, by_seeds in expected.items():
        for seeds, values in by_seeds.items():
            assert means[name][seeds] == pytest.approx(np.nanmean(values)), name
    assert collected.undefined() == pytest.approx(2 / 7)
    single = MapSimilarities()
    single.add((0,), torch.rand(1, 3, 3), torch.rand(1, 3, 3))
    assert set(single.means()) == {"correlation", "iou"}  # no other image
