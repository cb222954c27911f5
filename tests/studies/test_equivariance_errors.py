"""How far a rectangle is from where it should be: known displacements, and areas by counting points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from foveate.explain import AttentionRecord, attention_records
from foveate.explain.records import GATE
from foveate.functional import (
    random_similarities,
    rectangle_corners,
    rectangle_distance,
    rectangle_map,
    transform_points,
    transform_rectangle,
    warp,
)
from studies.equivariance.errors import KINDS, equivariance_errors, quadrilateral_iou, similarities_of


def rectangles(size: int, seed: int = 1) -> Tensor:
    draws = torch.rand(size, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = torch.tensor([[-0.4, -0.4, 0.4, 0.1, -3.0], [0.4, 0.4, 0.8, 0.3, 3.0]], dtype=torch.float64)
    return low + (high - low) * draws


def record(rectangle: Tensor, height: int, width: int, *, corners: Tensor | None = None) -> AttentionRecord:
    """Return the record of a gate with these rectangles; its map is drawn at the size of the image."""
    corners = rectangle_corners(rectangle) if corners is None else corners
    pixels = (corners + 1) / 2 * torch.tensor([width, height])
    drawn = rectangle_map(rectangle, height, width)[:, 0]
    return AttentionRecord("gate", "Gate", drawn.float(), GATE, (height, width), rectangle=pixels)


def similarities(size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return random_similarities(size, shift=0.3, rotation=3.0, scale=1.4, generator=generator).double()


@pytest.mark.parametrize(("height", "width"), [(40, 40), (36, 60)])
def test_what_follows_exactly_has_no_error(height: int, width: int) -> None:
    rectangle, similarity, aspect = rectangles(9), similarities(9), width / height
    corners = transform_points(rectangle_corners(rectangle), similarity, aspect=aspect)
    after = record(transform_rectangle(rectangle, similarity, aspect=aspect), height, width, corners=corners)
    errors = equivariance_errors(record(rectangle, height, width), after, similarity)
    for name in ("centre", "size", "angle", "corners"):
        assert errors[name].max() < 1e-5, name
    assert errors["overlap"].min() > 1 - 1e-6
    # The maps differ by the softness of their edges, and on oblong images by the shape.
    assert errors["correlation"].min() > (0.99 if aspect == 1 else 0.8)
    assert errors["iou"].min() > (0.75 if aspect == 1 else 0.4)


def test_the_distance_of_corners_is_that_of_the_loss_on_square_images() -> None:
    rectangle, found, similarity = rectangles(9), rectangles(9, seed=2), similarities(9)
    errors = equivariance_errors(record(rectangle, 32, 32), record(found, 32, 32), similarity)
    squared = rectangle_distance(rectangle, found, similarity=similarity)
    torch.testing.assert_close(errors["corners"], squared.sqrt() / 2)  # a side is 2 in coordinates of [−1, 1]


@pytest.mark.parametrize(("height", "width"), [(40, 40), (36, 60)])
def test_known_displacements(height: int, width: int) -> None:
    rectangle, still = rectangles(4), torch.tensor([[0.0, 0, 0, 1]]).expand(4, 4)
    before = record(rectangle, height, width)
    unit = math.sqrt(height * width)
    centre = (rectangle_corners(rectangle).mean(1) + 1) / 2 * torch.tensor([width, height])
    pixels = before.rectangle
    assert pixels is not None

    def errors(corners: Tensor) -> dict[str, list[float]]:
        after = record(rectangle, height, width, corners=2 * corners / torch.tensor([width, height]) - 1)
        found = equivariance_errors(before, after, still)
        return {name: values.tolist() for name, values in found.items()}

    moved = errors(pixels + torch.tensor([3.0, -4.0]))
    assert moved["centre"] == pytest.approx([5 / unit] * 4)
    assert moved["corners"] == pytest.approx([5 / unit] * 4)
    assert moved["size"] == pytest.approx([0] * 4, abs=1e-9)
    assert moved["angle"] == pytest.approx([0] * 4, abs=1e-5)
    for factor in (1.5, 1 / 1.5):
        grown = errors(centre[:, None] + factor * (pixels - centre[:, None]))
        assert grown["size"] == pytest.approx([math.log(1.5)] * 4)
        assert grown["overlap"] == pytest.approx([1 / 1.5**2] * 4)
        assert grown["centre"] == pytest.approx([0] * 4, abs=1e-9)
    for degrees in (20, 200, -20, 160 - 180):
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
        turned = errors(centre[:, None] + (pixels - centre[:, None]) @ turn.mT)
        assert turned["angle"] == pytest.approx([20] * 4)
    # The same rectangle by another name: corners numbered from another one.
    renamed = errors(pixels.roll(1, dims=1))
    assert max(map(max, (renamed["centre"], renamed["size"], renamed["angle"], renamed["corners"]))) < 1e-5
    assert renamed["overlap"] == pytest.approx([1] * 4)


def test_the_direction_of_a_square_is_not_asked_for() -> None:
    square = torch.tensor([[0.0, 0, 0.3, 0.3, 0.2], [0.0, 0, 0.3, 0.25, 0.2]], dtype=torch.float64)
    errors = equivariance_errors(record(square, 32, 32), record(square, 32, 32), torch.tensor([[0.0, 0, 0.5, 1]] * 2))
    assert errors["angle"][0].isnan()
    assert errors["angle"][1].item() == pytest.approx(math.degrees(0.5))
    assert not errors["corners"].isnan().any()


def test_what_is_carried_out_of_the_image_does_not_count() -> None:
    rectangle = rectangles(2) * torch.tensor([0, 0, 1, 1, 1])
    away = torch.tensor([[1.01, 0, 0, 1], [0.99, 0, 0, 1]], dtype=torch.float64)
    errors = equivariance_errors(record(rectangle, 32, 32), record(rectangle, 32, 32), away)
    for name in ("centre", "size", "angle", "corners", "overlap"):
        assert errors[name].isnan().tolist() == [True, False], name
    assert errors["centre"][1].item() == pytest.approx(0.99 / 2)


def test_overlaps_are_those_of_counted_points() -> None:
    a, b = rectangle_corners(rectangles(12)), rectangle_corners(rectangles(12, seed=2))
    found = quadrilateral_iou(a, b.flip(1))  # either way around
    ticks = (np.arange(700) + 0.5) / 700 * 4 - 2
    x, y = np.meshgrid(ticks, ticks)

    def inside(corners: np.ndarray) -> np.ndarray:
        within = np.ones_like(x, dtype=bool)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            within &= (end[0] - start[0]) * (y - start[1]) - (end[1] - start[1]) * (x - start[0]) >= 0
        return within

    for row in range(12):
        one, two = inside(a[row].numpy()), inside(b[row].numpy())
        assert found[row].item() == pytest.approx((one & two).sum() / (one | two).sum(), abs=0.01)
    assert found.min() == 0  # apart
    assert 0.3 < found.max() < 0.5


def test_overlaps_that_are_known() -> None:
    unit = torch.tensor([[[0.0, 0], [1, 0], [1, 1], [0, 1]]])
    half_right = unit + torch.tensor([0.5, 0])
    diamond = torch.tensor([[[0.5, -0.5], [1.5, 0.5], [0.5, 1.5], [-0.5, 0.5]]])  # twice as large, around the square
    eighth = torch.tensor([[[0.5, 0.5 - 2**-0.5], [0.5 + 2**-0.5, 0.5], [0.5, 0.5 + 2**-0.5], [0.5 - 2**-0.5, 0.5]]])
    line = torch.tensor([[[0.2, 0.2], [0.8, 0.8], [0.8, 0.8], [0.2, 0.2]]])
    octagon = 2 * (math.sqrt(2) - 1)  # of a square and the same turned by 45°
    for other, expected in [
        (unit, 1),
        (unit.flip(1), 1),
        (unit.roll(2, dims=1), 1),
        (half_right, 1 / 3),
        (unit + torch.tensor([1.0, 0]), 0),  # an edge in common
        (unit + torch.tensor([1.0, 1.0]), 0),  # a corner in common
        (unit + 5, 0),
        (unit * 0.5 + 0.25, 0.25),
        (unit * 0.5, 0.25),  # two edges in common
        (diamond, 0.5),  # corners on edges
        (eighth, octagon / (2 - octagon)),
        (line, 0),
    ]:
        assert quadrilateral_iou(unit, other).item() == pytest.approx(expected, abs=1e-6)
        assert quadrilateral_iou(other, unit).item() == pytest.approx(expected, abs=1e-6)
        assert quadrilateral_iou(1e-3 * unit + 7, 1e-3 * other + 7).item() == pytest.approx(expected, abs=2e-3)
    assert quadrilateral_iou(line, line).item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_similarities_of_one_kind_have_its_magnitude(kind: str) -> None:
    magnitude = {"shift": 0.2, "rotation": 30.0, "scale": 1.5}[kind]
    drawn = similarities_of(kind, magnitude, 300, generator=torch.Generator().manual_seed(0))
    lengths = {
        "shift": drawn[:, :2].norm(dim=1) / 2,
        "rotation": drawn[:, 2].abs().rad2deg(),
        "scale": drawn[:, 3].log().abs().exp(),
    }
    for name, values in lengths.items():
        expected = magnitude if name == kind else float(name == "scale")
        torch.testing.assert_close(values, torch.full_like(values, expected))
    column = {"shift": 0, "rotation": 2, "scale": 3}[kind]
    shares = (drawn[:, column] > float(kind == "scale")).double().mean()
    assert 0.4 < shares < 0.6
    nothing = similarities_of(kind, float(kind == "scale"), 5)
    assert torch.equal(nothing, torch.tensor([[0.0, 0, 0, 1]]).expand(5, 4))


@pytest.mark.slow
def test_of_networks_whatever_their_attention() -> None:
    """A network that does not move what it looks at is off by what the image was moved by."""
    torch.manual_seed(0)
    images, similarity = torch.randn(3, 3, 24, 32), similarities_of("shift", 0.1, 3)
    for name, measures in [("cram_resnet_tiny", 7), ("positionwise_resnet_tiny", 2), ("expatt_resnet_tiny", 2)]:
        model = timm.create_model(name, num_classes=10, img_size=(24, 32))
        before, after = (attention_records(model, batch) for batch in (images, warp(images, similarity)))
        for one, two in zip(before, after, strict=True):
            errors = equivariance_errors(one, two, similarity)
            assert len(errors) == measures
            assert all(values.shape == (3,) for values in errors.values())
            if name == "cram_resnet_tiny":  # the rectangle that it starts with
                width_share, height_share = (similarity[:, :2] / 2).abs().unbind(1)
                expected = (32 * width_share).hypot(24 * height_share) / math.sqrt(24 * 32)
                torch.testing.assert_close(errors["centre"], expected.double())


def test_bad_input_is_refused() -> None:
    one, other = record(rectangles(2), 32, 32), record(rectangles(2), 32, 40)
    similarity = similarities(2)
    for call, message in [
        (lambda: equivariance_errors(one, other, similarity), r"of \(32, 32\), and gate, 2 of \(32, 40\)"),
        (lambda: equivariance_errors(one, record(rectangles(3), 32, 32), similarity), "equally many images"),
        (lambda: equivariance_errors(one, one, similarity[:1]), "need as many similarities; got 1"),
        (lambda: quadrilateral_iou(torch.zeros(2, 4, 2), torch.zeros(1, 4, 2)), r"corners must be \(B, 4, 2\), twice"),
        (lambda: similarities_of("shear", 0.1, 2), "kind must be one of shift, rotation, scale"),
        (lambda: similarities_of("scale", 0.5, 2), "magnitude must be .* at least 1"),
        (lambda: similarities_of("shift", -0.5, 2), "magnitude must be .* at least 0"),
        (lambda: similarities_of("shift", 0.5, 0), "size must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert equivariance_errors(one, one, similarity)
