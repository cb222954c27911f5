"""Rectangles under similarities: their maps against warped maps, distances against matrix roots."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foveate import functional as FA
from tests.functional.similarities import carried, drawn, matrix_root, rectangles

pytestmark = pytest.mark.usefixtures("shapes")


@pytest.mark.slow
def test_the_map_of_the_transformed_rectangle_is_the_warped_map() -> None:
    rectangle, similarity, side, sharpness = rectangles(17), drawn(17), 211, 5.0
    seen = FA.visible(torch.zeros(17, 1, side, side), similarity)
    warped = FA.warp(FA.rectangle_map(rectangle, side, side, sharpness=sharpness), similarity)
    moved = FA.transform_rectangle(rectangle, similarity)
    for index in range(17):
        softened = sharpness / similarity[index, 3].item()
        drawn_anew = FA.rectangle_map(moved[index : index + 1], side, side, sharpness=softened)
        error = (drawn_anew - warped[index : index + 1]).abs()[seen[index : index + 1]]
        assert error.max() < sharpness / 4 / side  # the slope, over the half of a pixel that is cut at the edge
        assert error.mean() < 1e-4


@pytest.mark.parametrize(("height", "width"), [(5, 7), (11, 3)])
def test_on_other_images_the_moments_are_those_of_the_parallelogram(height: int, width: int) -> None:
    """Moments of the carried corners' parallelogram, summed over a lattice of its points in pixels."""
    rectangle, similarity = rectangles(9), drawn(9)
    moved = FA.transform_rectangle(rectangle, similarity, aspect=width / height)
    assert (moved[:, 2] >= moved[:, 3]).all()
    assert (moved[:, 3] > 0).all()
    ticks = (2 * np.arange(200) + 1) / 200 - 1
    for index, numbers in enumerate(similarity.tolist()):
        shapes = []
        corners = FA.rectangle_corners(rectangle[index : index + 1])[0].tolist()
        carried_corners = [carried(complex(*corner), numbers, height, width) for corner in corners]
        for points in (
            carried_corners,
            [complex(*p) for p in FA.rectangle_corners(moved[index : index + 1])[0].tolist()],
        ):
            centre = sum(points) / 4
            across, along = (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
            lattice = centre + across * ticks[:, None] + along * ticks[None]
            x, y = lattice.real, lattice.imag
            area = 4 * abs(across.real * along.imag - across.imag * along.real)
            shapes.append([x.mean(), y.mean(), x.var(), y.var(), ((x - x.mean()) * (y - y.mean())).mean(), area])
        assert shapes[0] == pytest.approx(shapes[1], rel=1e-9, abs=1e-12)


def test_without_a_rotation_every_rectangle_is_exact() -> None:
    rectangle, similarity = rectangles(9), drawn(9)
    similarity[:, 2] = torch.tensor([0.0, math.pi, 0] * 3, dtype=torch.float64)
    moved = FA.rectangle_corners(FA.transform_rectangle(rectangle, similarity, aspect=7 / 3))
    expected = FA.transform_points(FA.rectangle_corners(rectangle), similarity, aspect=7 / 3)
    for corners, wanted in zip(moved.tolist(), expected.tolist(), strict=True):
        assert sorted(corners) == [pytest.approx(corner, abs=1e-9) for corner in sorted(wanted)]


def test_the_distance_is_that_of_centres_and_matrix_roots() -> None:
    a, b, similarity = rectangles(7, seed=4), rectangles(7, seed=5), drawn(7)
    for aspect in (1.0, 0.6):
        plain = FA.rectangle_distance(a, b)
        moved = FA.rectangle_distance(a, b, similarity=similarity, aspect=aspect)
        for index, numbers in enumerate(similarity.tolist()):
            root = matrix_root(b[index])
            expected = np.sum((a[index, :2] - b[index, :2]).numpy() ** 2) + np.sum((matrix_root(a[index]) - root) ** 2)
            assert plain[index].item() == pytest.approx(expected)
            width, height = aspect, 1.0
            corners = [carried(z, numbers, height, width) for z in (0, 1, 1j)]  # type: ignore[arg-type]
            matrix = np.array([[z.real, z.imag] for z in (corners[1] - corners[0], corners[2] - corners[0])]).T
            centre = carried(complex(*a[index, :2].tolist()), numbers, height, width)
            offset = abs(centre - complex(*b[index, :2].tolist())) ** 2
            expected = offset + np.sum((matrix_root(a[index], matrix) - root) ** 2)
            assert moved[index].item() == pytest.approx(expected)
        carried_over = FA.transform_rectangle(a, similarity, aspect=aspect)
        torch.testing.assert_close(FA.rectangle_distance(carried_over, b), moved)


def test_the_distance_of_rectangles_with_one_direction_is_that_of_their_corners() -> None:
    a, b = rectangles(7, seed=4), rectangles(7, seed=5)
    b[:, 4] = a[:, 4]
    corners = (FA.rectangle_corners(a) - FA.rectangle_corners(b)).square().sum(2).mean(1)
    torch.testing.assert_close(FA.rectangle_distance(a, b), corners)


def test_the_symmetries_change_nothing() -> None:
    a, b, similarity = rectangles(7, seed=4), rectangles(7, seed=5), drawn(7)
    turned, swapped = a.clone(), a[:, [0, 1, 3, 2, 4]]
    turned[:, 4] += 3 * math.pi
    swapped[:, 4] += math.pi / 2
    for other in (turned, swapped):
        torch.testing.assert_close(FA.rectangle_map(other, 5, 7), FA.rectangle_map(a, 5, 7))
        assert FA.rectangle_distance(a, other).max() < 1e-24
        torch.testing.assert_close(FA.rectangle_distance(other, b), FA.rectangle_distance(a, b))
        options: dict[str, Any] = {"similarity": similarity, "aspect": 0.7}
        expected = FA.rectangle_distance(a, b, **options)
        torch.testing.assert_close(FA.rectangle_distance(other, b, **options), expected)
    assert FA.rectangle_distance(a, b).min() > 1e-3


@pytest.mark.parametrize("aspect", [1.0, 1.7])
@pytest.mark.parametrize("rotation", [0.0, 0.4])
def test_gradients_at_squares(aspect: float, rotation: float) -> None:
    """Equal sides, and the same rectangle twice: where roots and angles have no gradient of their own."""
    square = torch.tensor([[0.1, -0.2, 0.8, 0.8, 0.3], [0.0, 0.0, 1.6, 1.6, 0.0]], dtype=torch.float64)
    similarity = torch.tensor([[0.1, 0.2, rotation, 1.1], [0.0, 0.0, rotation, 1.0]], dtype=torch.float64)
    a, b = square.clone().requires_grad_(), square.clone().requires_grad_()

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return FA.rectangle_distance(a, b, similarity=similarity, aspect=aspect)

    assert torch.autograd.gradcheck(distance, (a, b))
    gradients = torch.autograd.grad(distance(a, b).sum(), (a, b))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[1][:, 4].abs().max() < 1e-12
    moved = FA.transform_rectangle(a, similarity, aspect=aspect)
    assert torch.autograd.grad(moved.sum(), a)[0].isfinite().all()
    long, other, three = rectangles(3).requires_grad_(), rectangles(3, seed=9), drawn(3)
    assert torch.autograd.gradcheck(lambda r: FA.rectangle_distance(r, other, similarity=three), (long,))
    assert torch.autograd.gradcheck(lambda r: FA.transform_rectangle(r, three, aspect=aspect), (long,))
