"""Similarity of maps against scipy and plain sets, and the cases in which there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from foveate.explain.map_similarity import correlation, half_maximum, half_maximum_iou, total_variation
from foveate.functional import rectangle_map

pytestmark = pytest.mark.usefixtures("shapes")

HEIGHT, WIDTH = 5, 7


def maps(size: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(size, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def chosen(size: int = 6) -> Tensor:
    return torch.rand(size, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(9)) < 0.6


def region(values: Tensor, where: Tensor | None, row: int) -> set[tuple[int, int]]:
    positions = [(i, j) for i in range(HEIGHT) for j in range(WIDTH) if where is None or where[row, i, j]]
    highest = max(float(values[row, i, j]) for i, j in positions)
    return {(i, j) for i, j in positions if float(values[row, i, j]) >= highest / 2}


@pytest.mark.parametrize("where", [None, chosen()], ids=["everywhere", "somewhere"])
def test_figures_are_those_of_plain_loops(where: Tensor | None) -> None:
    a, b = maps(seed=0), 0.5 * maps(seed=0) + maps(seed=1)
    found, overlaps, regions = correlation(a, b, where), half_maximum_iou(a, b, where), half_maximum(a, where)
    for row in range(6):
        chosen_row = slice(None) if where is None else where[row]
        expected = stats.pearsonr(a[row][chosen_row].double().ravel(), b[row][chosen_row].double().ravel()).statistic
        assert found[row].item() == pytest.approx(expected)
        first, second = region(a, where, row), region(b, where, row)
        assert overlaps[row].item() == pytest.approx(len(first & second) / len(first | second))
        assert {(i, j) for i, j in regions[row].nonzero().tolist()} == first
    assert overlaps.min() < 0.9
    assert found.dtype == overlaps.dtype == torch.float64


def test_what_is_outside_does_not_count() -> None:
    a, b, where = maps(seed=0), maps(seed=1), chosen()
    louder = a.where(where, 100.0), b.where(where, 50.0)
    for measure in (correlation, half_maximum_iou):
        torch.testing.assert_close(measure(*louder, where), measure(a, b, where))
        assert not torch.allclose(measure(*louder), measure(a, b))


def test_correlation_is_blind_to_scale_and_offset_and_not_to_sign() -> None:
    a = maps()
    torch.testing.assert_close(correlation(a, 0.01 * a + 3), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(correlation(a, 2 - a), -torch.ones(6, dtype=torch.float64))


def test_flat_maps_have_no_correlation_and_all_of_their_region() -> None:
    a = maps(2)
    flat = torch.full_like(a, 0.95)
    rounded = flat + 1e-7 * (a - 0.5)  # as flat as float32 has it
    for one, other in ((a, flat), (flat, a), (flat, flat), (a, rounded)):
        assert correlation(one, other).isnan().all()
    assert half_maximum(flat).all()
    torch.testing.assert_close(half_maximum_iou(flat, rounded), torch.ones(2, dtype=torch.float64))
    nearly = flat + 1e-3 * (a - 0.5)  # flat to the eye, and not to correlation
    torch.testing.assert_close(correlation(a, nearly), torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=0)
    nothing = torch.zeros_like(a)
    assert half_maximum_iou(a, nothing).isnan().all()
    assert not half_maximum_iou(a, flat).isnan().any()
    single = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    assert correlation(a, maps(2, seed=1), single).isnan().all()
    assert half_maximum_iou(a, maps(2, seed=1), single).isnan().all()
    single[0, 2, 3] = True
    assert correlation(a, maps(2, seed=1), single).isnan().all()
    assert half_maximum_iou(a, maps(2, seed=1), single)[0] == 1


def test_total_variation_is_the_plain_sum() -> None:
    a = maps()
    for row, values in enumerate(a.double().numpy()):
        along_rows = sum(abs(values[i, j + 1] - values[i, j]) for i in range(HEIGHT) for j in range(WIDTH - 1)) / HEIGHT
        down = sum(abs(values[i + 1, j] - values[i, j]) for i in range(HEIGHT - 1) for j in range(WIDTH)) / WIDTH
        assert total_variation(a)[row].item() == pytest.approx(along_rows + down)
    assert (total_variation(torch.full((1, 3, 4), 0.7)) == 0).all()
    assert (total_variation(torch.ones(1, 1, 1)) == 0).all()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 40)])
def test_total_variation_of_a_sharp_rectangle_is_its_circumference(height: int, width: int) -> None:
    """In sides of the image: half of the half-sizes' coordinates. At any resolution, and of any aspect ratio."""
    upright = torch.tensor([[0.1, -0.2, 0.5, 0.25, 0.0]])
    hard = rectangle_map(upright, height, width, sharpness=1e4)[:, 0]
    assert total_variation(hard).item() == pytest.approx(2 * (0.5 + 0.25), abs=2 / min(height, width))
    half_outside = torch.tensor([[1.0, 0.0, 0.5, 0.5, 0.0]])
    cut = rectangle_map(half_outside, height, width, sharpness=1e4)[:, 0]
    assert total_variation(cut).item() == pytest.approx(0.5 + 2 * 0.25, abs=2 / min(height, width))


def test_bad_input_is_refused() -> None:
    a = maps(2)
    for call, message in [
        (lambda: correlation(a, a[:, :4]), r"one shape; got \(2, 5, 7\) and \(2, 4, 7\).*resampled"),
        (lambda: correlation(a[0], a[0]), r"maps must be floating-point maps \(B, H, W\).*\(5, 7\)"),
        (lambda: correlation(a, -a), "others must be finite and not negative"),
        (lambda: half_maximum_iou(a, a / 0), "others must be finite"),
        (lambda: half_maximum_iou(a, a, a), "where must be boolean, of the maps' shape"),
        (lambda: half_maximum(a, chosen(6)), "where must be boolean, of the maps' shape"),
        (lambda: total_variation(a.long()), "maps must be floating-point maps .* torch.int64"),
        (lambda: total_variation(a[:0]), "at least one position"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert math.isfinite(correlation(a, maps(2, seed=1)).sum())
    assert np.isfinite(total_variation(a).numpy()).all()
