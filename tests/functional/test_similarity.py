"""Similarities against complex numbers in pixels, warps against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from foveate import functional as FA
from tests.functional.similarities import carried, drawn, rectangles, undone

pytestmark = pytest.mark.usefixtures("shapes")

SIZES = [(5, 7), (7, 5), (6, 6)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_rotations_are_rotations_of_pixels(height: int, width: int) -> None:
    similarity, points = drawn(11), torch.rand(11, 3, 2, dtype=torch.float64) * 2 - 1
    moved = FA.transform_points(points, similarity, aspect=width / height)
    back = FA.transform_points(moved, FA.invert_similarity(similarity, aspect=width / height), aspect=width / height)
    torch.testing.assert_close(back, points)
    for row, numbers in enumerate(similarity.tolist()):
        for column, (x, y) in enumerate(points[row].tolist()):
            wanted = carried(complex(x, y), numbers, height, width)
            assert complex(*moved[row, column].tolist()) == pytest.approx(wanted, abs=1e-12)
            assert undone(wanted, numbers, height, width) == pytest.approx(complex(x, y), abs=1e-12)


@pytest.mark.parametrize("aspect", [1.0, 7 / 5])
def test_one_after_the_other_is_both_at_once(aspect: float) -> None:
    first, second = drawn(13, seed=2), drawn(13, seed=3)
    both = FA.compose_similarities(second, first, aspect=aspect)
    points = torch.rand(13, 4, 2, dtype=torch.float64)
    stepwise = FA.transform_points(FA.transform_points(points, first, aspect=aspect), second, aspect=aspect)
    torch.testing.assert_close(FA.transform_points(points, both, aspect=aspect), stepwise)
    rectangle = rectangles(13)
    by_steps = FA.transform_rectangle(FA.transform_rectangle(rectangle, first, aspect=aspect), second, aspect=aspect)
    at_once = FA.transform_rectangle(rectangle, both, aspect=aspect)
    # The same rectangle, whatever the five numbers that it is named by.
    torch.testing.assert_close(FA.rectangle_map(at_once, 5, 7), FA.rectangle_map(by_steps, 5, 7))
    assert FA.rectangle_distance(at_once, by_steps).max() < 1e-20
    nothing = FA.compose_similarities(FA.invert_similarity(first, aspect=aspect), first, aspect=aspect)
    torch.testing.assert_close(nothing, torch.tensor([[0.0, 0, 0, 1]], dtype=torch.float64).expand(13, 4))


def reflected(index: int, side: int) -> int:
    """Return the pixel that one outside of the image mirrors, at the outer edge of the outermost pixel."""
    index %= 2 * side
    return index if index < side else 2 * side - 1 - index


def read(image: Tensor, place: complex, padding: str) -> Tensor:
    """Return the channels of an image at a place, between the centres of its four nearest pixels."""
    height, width = image.shape[1:]
    column, row = (place.real + 1) * width / 2 - 0.5, (place.imag + 1) * height / 2 - 0.5
    total = torch.zeros(len(image), dtype=image.dtype)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            weight = (1 - abs(row - i)) * (1 - abs(column - j))
            if padding == "reflection":
                total += weight * image[:, reflected(i, height), reflected(j, width)]
            elif padding == "border":
                total += weight * image[:, min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
            elif 0 <= i < height and 0 <= j < width:
                total += weight * image[:, i, j]
    return total


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_warping_is_reading_at_the_place_that_is_carried_there(height: int, width: int, padding: str) -> None:
    images, similarity = torch.randn(5, 3, height, width, dtype=torch.float64), drawn(5)
    warped = FA.warp(images, similarity, padding=padding)
    inside = FA.visible(images, similarity)
    shown = 0
    for index, numbers in enumerate(similarity.tolist()):
        for i in range(height):
            for j in range(width):
                place = undone(complex((2 * j + 1) / width - 1, (2 * i + 1) / height - 1), numbers, height, width)
                seen = abs(place.real) <= 1 and abs(place.imag) <= 1
                assert bool(inside[index, 0, i, j]) == seen
                shown += seen
                expected = read(images[index], place, padding)
                torch.testing.assert_close(warped[index, :, i, j], expected, rtol=1e-9, atol=1e-9)
    assert 0 < shown < 5 * height * width


def test_quarter_turns_and_whole_pixels_are_exact() -> None:
    images = torch.randn(2, 3, 7, 7)
    quarter = torch.tensor([[0.0, 0, math.pi / 2, 1]]).expand(2, 4)
    torch.testing.assert_close(FA.warp(images, quarter), images.rot90(-1, (2, 3)), rtol=0, atol=1e-5)  # clockwise
    two_right_one_down = torch.tensor([[2 * 2 / 7, 2 / 7, 0, 1]]).expand(2, 4)
    moved = FA.warp(images, two_right_one_down)
    torch.testing.assert_close(moved[:, :, 1:, 2:], images[:, :, :-1, :-2], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[:, :, 0, 2:], images[:, :, 0, :-2], rtol=0, atol=1e-5)  # mirrored at the edge
    torch.testing.assert_close(moved[:, :, 1:, 1], images[:, :, :-1, 0], rtol=0, atol=1e-5)
    seen = FA.visible(images, two_right_one_down)
    assert seen[:, :, 1:, 2:].all()
    assert not seen[:, :, 0].any()
    assert not seen[:, :, :, :2].any()


def test_gradients_of_warped_maps() -> None:
    maps = torch.randn(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: FA.warp(x, drawn(2), aspect=1.3), (maps,))


def test_maps_are_warped_as_the_image_that_they_span() -> None:
    """A quarter turn of an image twice as wide as high, seen on a square map."""
    similarity = torch.tensor([[0, 0, math.pi / 2, 1]], dtype=torch.float64)
    rectangle = torch.tensor([[0.2, -0.1, 0.2, 0.3, 0]], dtype=torch.float64)
    warped = FA.warp(FA.rectangle_map(rectangle, 96, 96, sharpness=40), similarity, aspect=2.0)
    # One unit of x is two of y: (x, y) goes to (−y / 2, 2 x), and so do the sides.
    expected = torch.tensor([[0.05, 0.4, 0.15, 0.4, 0]], dtype=torch.float64)
    assert FA.rectangle_distance(FA.transform_rectangle(rectangle, similarity, aspect=2.0), expected) < 1e-20
    hard = FA.rectangle_map(expected, 96, 96, sharpness=1e3) > 0.5
    seen = FA.visible(warped, similarity, aspect=2.0)
    assert seen.double().mean() == pytest.approx(0.5, abs=0.02)
    assert ((warped > 0.5) != hard)[seen].double().mean() < 0.02


def test_random_similarities_keep_to_their_ranges_and_repeat() -> None:
    draw = {"shift": 0.3, "rotation": 0.5, "scale": 1.5}
    one = FA.random_similarities(4001, **draw, generator=torch.Generator().manual_seed(3))
    again = FA.random_similarities(4001, **draw, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, again)
    limits = torch.tensor([0.3, 0.3, 0.5, math.log(1.5)])
    logs = torch.cat([one[:, :3], one[:, 3:].log()], dim=1)
    assert (logs.abs() <= limits * (1 + 1e-6)).all()
    assert (logs.amax(0) > 0.99 * limits).all()
    assert (logs.mean(0).abs() < 0.05 * limits).all()  # as often one way as the other
    assert (logs.std(0) / limits - 3**-0.5).abs().max() < 0.02  # uniform
    assert FA.random_similarities(0, **draw).shape == (0, 4)
    still = FA.random_similarities(2, shift=0, rotation=0, scale=1)
    assert torch.equal(still, torch.tensor([[0.0, 0, 0, 1]]).expand(2, 4))


def test_half_precision_and_autocast_compute_in_float32() -> None:
    similarity, images = drawn(2).float(), torch.randn(2, 3, 5, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(FA.warp(images, similarity), FA.warp(images.double(), similarity).float())
        a, b = rectangles(2), rectangles(2, seed=8)
        narrow = FA.rectangle_distance(a.float(), b.float(), similarity=similarity, aspect=1.5)
        torch.testing.assert_close(narrow.double(), FA.rectangle_distance(a, b, similarity=similarity, aspect=1.5))
    half = FA.warp(images.bfloat16(), similarity)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, FA.warp(images.bfloat16().float(), similarity).bfloat16())


def test_no_images_at_all() -> None:
    images, similarity, rectangle = torch.zeros(0, 3, 5, 7), torch.zeros(0, 4), torch.zeros(0, 5)
    assert FA.warp(images, similarity).shape == images.shape
    assert FA.visible(images, similarity).shape == (0, 1, 5, 7)
    assert FA.visible(torch.zeros(2, 3, 0, 7), drawn(2)).shape == (2, 1, 0, 7)
    assert FA.warp(torch.zeros(2, 3, 0, 0), drawn(2)).shape == (2, 3, 0, 0)
    assert FA.compose_similarities(similarity, FA.invert_similarity(similarity)).shape == (0, 4)
    assert FA.transform_rectangle(rectangle, similarity, aspect=2.0).shape == (0, 5)


def test_points_are_carried_in_the_wider_precision_and_where_they_are() -> None:
    points, similarity = torch.rand(2, 3, 4, 2, dtype=torch.float64), drawn(2)
    found = FA.transform_points(points, similarity.float())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, FA.transform_points(points, similarity), atol=1e-6, rtol=0)
    assert FA.transform_points(points.to("meta"), similarity).device.type == "meta"  # as drawn ones are, on the CPU


def test_bad_input_is_refused() -> None:
    images, similarity, rectangle = torch.zeros(2, 3, 5, 7), drawn(2), rectangles(2)
    for call, message in [
        (lambda: FA.warp(images[0], similarity), r"images must be a floating-point batch .*\(3, 5, 7\)"),
        (lambda: FA.warp(images.long(), similarity), "floating-point batch .* torch.int64"),
        (lambda: FA.warp(images, similarity[:1]), "2 images need as many similarities; got 1"),
        (lambda: FA.warp(images, rectangle), r"a similarity is four floating-point numbers a row.*\(2, 5\)"),
        (lambda: FA.warp(images, similarity, padding="wrap"), "padding must be one of reflection, border, zeros"),
        (lambda: FA.warp(images, similarity, aspect=0), "aspect must be .* above 0"),
        (lambda: FA.visible(images, similarity[:1]), "2 images need as many"),
        (lambda: FA.transform_points(torch.ones(2, 2, 3), similarity), r"points must be .* \(2, 2, 3\)"),
        (lambda: FA.transform_points(torch.ones(1, 2), similarity), "1 rows of points need as many"),
        (lambda: FA.compose_similarities(similarity, rectangle), r"a similarity is four floating-point numbers a row"),
        (lambda: FA.pixel_centers(0, images), "size must be at least 1"),
        (lambda: FA.transform_rectangle(rectangle.long(), similarity), "rectangles must be floating-point"),
        (lambda: FA.warp(images, similarity.long()), "a similarity is four floating-point numbers .* torch.int64"),
        (lambda: FA.transform_rectangle(similarity, similarity), "a rectangle is five numbers"),
        (lambda: FA.transform_rectangle(rectangle, rectangle), "a similarity is four floating-point numbers"),
        (lambda: FA.transform_rectangle(rectangle, similarity, aspect=-1), "aspect must be"),
        (lambda: FA.rectangle_distance(rectangle, similarity), "a rectangle is five numbers"),
        (lambda: FA.similarity_matrix(similarity, aspect=math.inf), "aspect must be"),
        (lambda: FA.random_similarities(-1, shift=0, rotation=0, scale=1), "size must be at least 0"),
        (lambda: FA.random_similarities(1, shift=-1, rotation=0, scale=1), "shift must be"),
        (lambda: FA.random_similarities(1, shift=0, rotation=0, scale=0.5), "scale must be .* at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert FA.warp(images, similarity).shape == images.shape
