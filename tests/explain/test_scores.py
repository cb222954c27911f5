"""Scores against loops over pixels in plain Python, with ties, flat maps, and boxes that hold nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from foveate.explain import (
    baseline_maps,
    box_above,
    box_iou,
    component_iou,
    corners_box,
    energy_inside,
    max_box_acc,
    pointing_game,
)
from foveate.stats import estimate

HEIGHT, WIDTH = 7, 11
Pixel = tuple[int, int]


def drawn(seed: int, number: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return maps of few levels, so that maxima are shared and components large, and boxes in quarters of pixels."""
    generator = np.random.default_rng(seed)
    maps = generator.integers(0, 5, (number, HEIGHT, WIDTH)) / 3
    quarters = [np.sort(generator.choice(4 * side, (number, 2)), axis=1) for side in (WIDTH, HEIGHT)]
    (left, right), (top, bottom) = (pair.T for pair in quarters)
    return maps, np.stack([left, top, right + 1, bottom + 1], axis=1) / 4


def pixels() -> Iterator[Pixel]:
    return itertools.product(range(HEIGHT), range(WIDTH))


def holds(box: np.ndarray, pixel: Pixel) -> bool:
    row, column = pixel
    return bool(box[0] <= column + 0.5 < box[2] and box[1] <= row + 0.5 < box[3])


def is_empty(box: np.ndarray) -> bool:
    return not any(holds(box, pixel) for pixel in pixels())


def quarters_of(box: np.ndarray) -> set[Pixel]:
    """Return the squares of a quarter of a pixel's side that a box consists of."""
    x_min, y_min, x_max, y_max = (4 * box).astype(int).tolist()
    return set(itertools.product(range(y_min, y_max), range(x_min, x_max)))


def iou(box: np.ndarray, other: np.ndarray) -> float:
    ours, theirs = quarters_of(box), quarters_of(other)
    return len(ours & theirs) / len(ours | theirs)


def around(chosen: set[Pixel]) -> np.ndarray:
    rows, columns = zip(*chosen, strict=True)
    return np.array([min(columns), min(rows), max(columns) + 1, max(rows) + 1], float)


def components(chosen: set[Pixel]) -> list[set[Pixel]]:
    """Return the sets of neighbours, corner to corner included, in the order of their first pixels row by row."""
    found, left = [], sorted(chosen)
    while left:
        component, border = set(), [left[0]]
        while border:
            row, column = border.pop()
            if (row, column) in chosen and (row, column) not in component:
                component.add((row, column))
                border += [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        found.append(component)
        left = [pixel for pixel in left if pixel not in component]
    return found


def test_pointing_game_equals_a_loop() -> None:
    maps, boxes = drawn(0, 200)
    for map_, box, score in zip(maps, boxes, pointing_game(maps, boxes), strict=True):
        maxima = [pixel for pixel in pixels() if map_[pixel] == map_.max()]
        expected = math.nan if is_empty(box) else sum(holds(box, pixel) for pixel in maxima) / len(maxima)
        np.testing.assert_equal(score, expected)


def test_energy_equals_a_loop_over_exact_areas() -> None:
    maps, boxes = drawn(1, 50)
    for map_, box, score in zip(maps, boxes, energy_inside(maps, boxes), strict=True):
        inside = quarters_of(box)
        energy = sum(Fraction(map_[row // 4, column // 4]) / 16 for row, column in inside)
        expected = math.nan if is_empty(box) else float(energy / sum(Fraction(map_[pixel]) for pixel in pixels()))
        assert score == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_box_above_a_share_of_the_maximum_equals_a_loop() -> None:
    maps = np.random.default_rng(2).random((40, HEIGHT, WIDTH)) ** 4
    for share in (0.3, 0.5, 1.0):
        for map_, box in zip(maps, box_above(maps, share=share), strict=True):
            chosen = {pixel for pixel in pixels() if map_[pixel] >= share * map_.max()}
            np.testing.assert_array_equal(box, around(chosen))


def test_iou_counts_area() -> None:
    _, boxes = drawn(3, 200)
    _, others = drawn(4, 200)
    for box, other, score in zip(boxes, others, box_iou(boxes, others, (HEIGHT, WIDTH)), strict=True):
        assert score == pytest.approx(math.nan if is_empty(other) else iou(box, other), rel=1e-12, nan_ok=True)


def test_boxes_of_the_largest_components_equal_a_flood_fill() -> None:
    maps, boxes = drawn(5, 100)
    found = component_iou(maps, boxes, thresholds=7)
    tied = 0
    for map_, box, row in zip(maps, boxes, found, strict=True):
        scaled = (map_ - map_.min()) / (map_.max() - map_.min())
        for t in range(7):
            parts = components({pixel for pixel in pixels() if scaled[pixel] >= t / 7})
            largest = max(parts, key=len)  # the first of equals
            tied += sum(len(part) == len(largest) for part in parts) > 1
            expected = math.nan if is_empty(box) else iou(around(largest), box)
            assert row[t] == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert tied > 10


def test_a_component_does_not_reach_into_the_next_image() -> None:
    maps = np.zeros((3, 4, 4))
    maps[0, 3, 3] = maps[1, 0, 0] = maps[2, 3] = 1
    boxes = np.array([[3, 3, 4, 4], [0, 0, 1, 1], [0, 3, 4, 4]])
    np.testing.assert_array_equal(component_iou(maps, boxes, thresholds=2)[:, 1], 1.0)


def test_max_box_acc_is_the_best_share_over_thresholds() -> None:
    maps, boxes = drawn(6, 60)
    overlaps = component_iou(maps, boxes, thresholds=9)
    kept = [row for row in overlaps.tolist() if not math.isnan(row[0])]
    assert 0 < len(kept) < 60
    for minimum in (0.3, 0.5, 0.7):
        shares = [sum(row[t] >= minimum for row in kept) / len(kept) for t in range(9)]
        values, best = max_box_acc(overlaps, minimum)
        assert best == shares.index(max(shares))
        assert np.nanmean(values) == pytest.approx(max(shares))
        assert np.isnan(values).sum() == 60 - len(kept)


@pytest.mark.parametrize("value", [0.0, 0.7, 1e-30])
def test_a_flat_map_is_no_hit_and_its_box_is_the_map(value: float) -> None:
    """Flat but for the rounding of float32: a softmax over equal scores is like that."""
    noise = 1 + np.random.default_rng(0).uniform(-2, 2, (1, HEIGHT, WIDTH)) * np.finfo(np.float32).eps
    maps, box = value * noise, np.array([[2, 1, 5, 6]])
    share = 3 * 5 / (HEIGHT * WIDTH)
    assert pointing_game(maps, box) == pytest.approx(share)
    assert energy_inside(maps, box) == pytest.approx(share, rel=1e-6)
    np.testing.assert_array_equal(box_above(maps), [[0, 0, WIDTH, HEIGHT]])
    np.testing.assert_allclose(component_iou(maps, box, thresholds=3), share)


def test_the_unit_of_a_map_does_not_matter() -> None:
    maps, boxes = drawn(7)
    for score in (pointing_game, energy_inside, component_iou):
        np.testing.assert_allclose(score(maps * 1e-7, boxes), score(maps, boxes), rtol=1e-9)
        np.testing.assert_allclose(score(torch.from_numpy(maps).float(), boxes), score(maps, boxes), rtol=1e-5)


def test_a_box_without_the_centre_of_a_pixel_is_no_truth() -> None:
    maps = np.ones((4, HEIGHT, WIDTH))
    boxes = np.array([[3, 2, 3, 6], [3.6, 2, 4.4, 6], [0, 0, 0, 0], [3.4, 2, 4.4, 6]])
    scores = [pointing_game(maps, boxes), energy_inside(maps, boxes), box_iou(boxes, boxes, (HEIGHT, WIDTH))]
    scores += list(component_iou(maps, boxes, thresholds=2).T)
    for score in scores:
        np.testing.assert_array_equal(np.isnan(score), [True, True, True, False])


def test_the_box_around_a_rectangle_is_cut_to_the_map() -> None:
    corners = torch.tensor([[[4.0, -1.0], [9.0, 3.5], [6.0, 6.0], [1.0, 2.0]], [[20.0, 1], [22, 1], [22, 3], [20, 3]]])
    np.testing.assert_array_equal(corners_box(corners, (HEIGHT, WIDTH)), [[1, 0, 9, 6], [11, 1, 11, 3]])
    assert box_iou([[11, 1, 11, 3]], [[8, 1, 11, 3]], (HEIGHT, WIDTH)) == 0


def test_baselines() -> None:
    centre = baseline_maps("centre", [4, 7], (HEIGHT, WIDTH))
    for row, column in pixels():
        x, y = (column + 0.5) / WIDTH - 0.5, (row + 0.5) / HEIGHT - 0.5
        assert centre[1, row, column] == pytest.approx(math.exp(-(x * x + y * y) / (2 * 0.25**2)))
    np.testing.assert_array_equal(baseline_maps("uniform", [4, 7], (2, 3)), np.ones((2, 2, 3)))
    random = baseline_maps("random", [4, 7, 4], (50, 60), seed=3)
    np.testing.assert_array_equal(random[0], random[2])
    np.testing.assert_array_equal(random[1], baseline_maps("random", [7], (50, 60), seed=3)[0])
    assert not np.isclose(random[0], random[1]).any()
    assert stats.kstest(random[0].ravel(), "uniform").pvalue > 0.01
    assert not np.array_equal(random[0], baseline_maps("random", [4], (50, 60), seed=2)[0])


def test_the_interval_of_a_share_is_that_of_a_binomial() -> None:
    values = np.repeat([1.0, 0.0, math.nan], [63, 137, 20])
    found = estimate(values, confidence=0.9, seed=1)
    assert found is not None
    assert (found.mean, found.images, found.confidence) == (pytest.approx(63 / 200), 200, 0.9)
    ends = stats.binom.ppf([0.05, 0.95], 200, 63 / 200) / 200
    assert [found.low, found.high] == pytest.approx(ends, abs=0.006)
    assert estimate(values, confidence=0.9, seed=1) == found
    assert estimate(np.full(5, 0.25)) == estimate([0.25] * 5)
    one = estimate([0.25])
    assert one is not None
    assert (one.mean, one.low, one.high) == (0.25, 0.25, 0.25)
    assert estimate([math.nan, math.nan]) is None


def test_a_difference_is_paired() -> None:
    generator = np.random.default_rng(0)
    easy = generator.random(300)
    ours, theirs = easy + 0.1 + generator.normal(0, 0.01, 300), easy.copy()
    theirs[7] = math.nan
    found = estimate(ours, theirs)
    assert found is not None
    assert found.images == 299
    assert 0.095 < found.low < found.mean < found.high < 0.105


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda maps, boxes: pointing_game(maps[0], boxes), r"maps must be \(B, H, W\).*\(7, 11\)"),
        (lambda maps, boxes: pointing_game(maps[:, :0], boxes), "with at least one pixel"),
        (lambda maps, boxes: energy_inside(maps - 1, boxes), "finite and not negative; .* give the magnitudes"),
        (lambda maps, boxes: box_above(maps * math.nan), "finite and not negative"),
        (lambda maps, boxes: box_above(maps, share=0), "share must be a finite number above 0 and at most 1"),
        (lambda maps, boxes: pointing_game(maps, boxes[:3]), "3 boxes for 5 maps"),
        (lambda maps, boxes: pointing_game(maps, boxes[:, :3]), r"boxes must be \(B, 4\).*\(5, 3\)"),
        (lambda maps, boxes: pointing_game(maps, boxes[:, ::-1]), "x_min <= x_max and y_min <= y_max"),
        (lambda maps, boxes: box_iou(boxes[:2], boxes, (7, 11)), "one found box for each true one; got 2 for 5"),
        (lambda maps, boxes: component_iou(maps, boxes, thresholds=0), "thresholds must be at least 1"),
        (lambda maps, boxes: max_box_acc(boxes[0]), r"ious must be \(B, T\)"),
        (lambda maps, boxes: max_box_acc(boxes, 1.5), "minimum must be a finite number at least 0 and at most 1"),
        (lambda maps, boxes: corners_box(boxes, (7, 11)), r"corners must be \(B, 4, 2\)"),
        (lambda maps, boxes: baseline_maps("center", [0], (7, 11)), "did you mean 'centre'"),
        (lambda maps, boxes: estimate(boxes), r"values must be \(images,\); got shape \(5, 4\)"),
        (lambda maps, boxes: estimate([1, 0], [1]), "same images; got 2 and 1"),
        (lambda maps, boxes: estimate([1, 0], confidence=1), "confidence must be below 1"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call(*drawn(0))
