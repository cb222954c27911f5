"""Measuring whether what a network looks at follows a shift, a rotation or a change of scale of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveate import _checks
from foveate.explain.map_similarity import correlation, half_maximum_iou
from foveate.explain.records import AttentionRecord
from foveate.functional import transform_points, visible, warp

__all__ = ["ELONGATED", "KINDS", "equivariance_errors", "quadrilateral_iou", "similarities_of"]

KINDS = ("shift", "rotation", "scale")

ELONGATED = 0.05
"""A rectangle has a direction if its half-sides differ by more than this share of their sum."""


def similarities_of(kind: str, magnitude: float, size: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Return ``size`` similarities of one kind and magnitude, ``(size, 4)``, in directions drawn at random.

    Args:
        kind: ``shift``: by ``magnitude`` sides of the image, in any direction; ``rotation``: by ``magnitude`` degrees,
            either way; ``scale``: by the factor ``magnitude`` ≥ 1 or its reciprocal.
        magnitude: See above; 0, or 1 for ``scale``, changes nothing.
        size: How many.
        generator: Where the random numbers come from.

    Raises:
        ValueError: An argument is out of its range.
    """
    _checks.one_of("kind", kind, KINDS)
    _checks.number("magnitude", magnitude, minimum=float(kind == "scale"))
    draws = torch.rand(_checks.integer("size", size), generator=generator)
    zeros, ones, sign = torch.zeros(size), torch.ones(size), torch.where(draws < 0.5, -1.0, 1.0)
    if kind == "shift":
        direction = 2 * math.pi * draws
        return torch.stack([2 * magnitude * direction.cos(), 2 * magnitude * direction.sin(), zeros, ones], dim=1)
    if kind == "rotation":
        return torch.stack([zeros, zeros, sign * math.radians(magnitude), ones], dim=1)
    return torch.stack([zeros, zeros, zeros, magnitude**sign], dim=1)


def equivariance_errors(before: AttentionRecord, after: AttentionRecord, similarity: Tensor) -> dict[str, Tensor]:
    """Return how far what a module does in ``T(image)`` is from ``T`` of what it does in the image.

    All are ``(B,)``, NaN where not defined. Of the maps, at the resolution of the image and where ``T(image)`` shows
    the image (see `foveate.functional.visible`):

    - ``correlation`` and ``iou``: `correlation` and `half_maximum_iou` of the warped map and the map of the warped
      image.

    Of rectangles, in *pixels*, whatever the image's aspect ratio, with the side ``√(H W)`` of the image as the unit:

    - ``centre``: distance between the centres;
    - ``size``: ``|ln(l'/l)|`` with ``l`` the root of the area: 0.1 is 10 % too large or too small;
    - ``angle``: between the long axes, in degrees from 0 to 90; NaN if either has no direction (`ELONGATED`);
    - ``corners``: root of the mean squared distance of corners, the distance of
      `foveate.functional.rectangle_distance`, blind to how corners are numbered;
    - ``overlap``: IoU of the one and the other, with the parts that lie outside of the image.

    They are NaN where ``T`` carries the rectangle's centre out of the image: what it was on may be gone.

    ``equivariance_errors(before, before, similarity)`` gives what a map that stays where it is would have.

    Args:
        before: Of the images.
        after: Of the images warped by ``similarity``, of the same module.
        similarity: ``T`` of each image, ``(B, 4)``.

    Raises:
        ValueError: The records are of different modules, images or image sizes.
    """
    if (before.name, before.image_size, len(before.map)) != (after.name, after.image_size, len(after.map)):
        raise ValueError(
            f"the records must be of one module and equally many images of one size; got {before.name}, "
            f"{len(before.map)} of {before.image_size}, and {after.name}, {len(after.map)} of {after.image_size}"
        )
    size = before.image_size
    maps, others = before.resampled("bilinear"), after.resampled("bilinear")
    expected, seen = warp(maps[:, None], similarity)[:, 0], visible(maps[:, None], similarity)[:, 0]
    errors = {
        "correlation": correlation(expected, others, seen),
        "iou": half_maximum_iou(expected, others, seen),
    }
    if before.rectangle is None or after.rectangle is None:
        return errors
    # From pixels to the coordinates of similarities and back.
    sides = torch.tensor(size[::-1], dtype=torch.float64)
    similarity, aspect = similarity.double(), size[1] / size[0]
    places = transform_points(2 * before.rectangle / sides - 1, similarity, aspect=aspect)
    inside = (places.mean(1).abs() <= 1).all(1)
    unit = sides.prod().sqrt()
    found = _rectangle_errors((places + 1) / 2 * sides / unit, after.rectangle / unit)
    return errors | {name: values.where(inside, torch.nan) for name, values in found.items()}


def _rectangle_errors(expected: Tensor, found: Tensor) -> dict[str, Tensor]:
    """Compare parallelograms given by corners ``(B, 4, 2)``."""
    (centre, shape), (other_centre, other_shape) = _form(expected), _form(found)
    offset = (centre - other_centre).square().sum(1)
    lengths = torch.det(shape).sqrt(), torch.det(other_shape).sqrt()
    directions, elongations = zip(*map(_direction, (shape, other_shape)), strict=True)
    turned = (directions[0] - directions[1]).remainder(math.pi)
    angle = torch.minimum(turned, math.pi - turned).rad2deg()
    directed = (elongations[0] > ELONGATED) & (elongations[1] > ELONGATED)
    return {
        "centre": offset.sqrt(),
        "size": (lengths[1] / lengths[0]).log().abs(),
        "angle": angle.where(directed, torch.nan),
        "corners": (offset + (shape - other_shape).square().sum((1, 2))).sqrt(),
        "overlap": quadrilateral_iou(expected, found),
    }


def _form(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centre ``(B, 2)`` and the root ``(B, 2, 2)`` of the second moments of parallelograms.

    With the half-axes as columns of ``L``, the moments are ``M = L Lᵀ``; the root of a 2×2 matrix is
    ``(M + √det M · I) / √(tr M + 2 √det M)``.
    """
    corners = corners.double()
    half_axes = torch.stack([corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]], dim=2) / 2
    moments = half_axes @ half_axes.mT
    area = torch.det(half_axes).abs()
    root = moments + area[:, None, None] * torch.eye(2, dtype=torch.float64)
    trace = moments.diagonal(dim1=1, dim2=2).sum(1)
    return corners.mean(1), root / (trace + 2 * area).sqrt()[:, None, None]


def _direction(shape: Tensor) -> tuple[Tensor, Tensor]:
    """Return the angle of the long axis, and the difference of the half-sides over their sum."""
    difference, mixed = shape[:, 0, 0] - shape[:, 1, 1], 2 * shape[:, 0, 1]
    trace = shape.diagonal(dim1=1, dim2=2).sum(1)
    return torch.atan2(mixed, difference) / 2, torch.hypot(difference, mixed) / trace


def quadrilateral_iou(corners: Tensor, others: Tensor) -> Tensor:
    """Return the IoU of convex quadrilaterals given by corners ``(B, 4, 2)`` in order: ``(B,)``, exact, in float64.

    The corners of the intersection are among the corners of the one inside the other and the crossings of their
    edges; put in order around their mean, they give its area by the shoelace formula. 0 where both have no area.

    Raises:
        ValueError: The corners are not two such arrays of one length.
    """
    if corners.shape != others.shape or corners.shape[1:] != (4, 2):
        raise ValueError(f"corners must be (B, 4, 2), twice; got {tuple(corners.shape)} and {tuple(others.shape)}")
    first, second = (_anticlockwise(value.double()) for value in (corners, others))
    crossings, crossed = _crossings(first, second)
    points = torch.cat([first, second, crossings], dim=1)  # B, 24, 2
    valid = torch.cat([_inside(first, second), _inside(second, first), crossed], dim=1)
    middle = (points * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
    offsets = (points - middle[:, None]) * valid[:, :, None]
    order = torch.atan2(offsets[..., 1], offsets[..., 0]).where(valid, torch.inf).argsort(1)
    ring = offsets.gather(1, order[:, :, None].expand_as(offsets))
    # What is not a corner comes last: let it be the first corner once more.
    ring = ring.where(valid.gather(1, order)[:, :, None], ring[:, :1])
    shared, areas = _area(ring), [_area(first), _area(second)]
    union = areas[0] + areas[1] - shared
    return torch.where(union > 0, shared / union, 0.0).clamp(0, 1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _area(ring: Tensor) -> Tensor:
    return (_cross(ring, ring.roll(-1, dims=1)).sum(1) / 2).abs()


def _anticlockwise(corners: Tensor) -> Tensor:
    signed = _cross(corners, corners.roll(-1, dims=1)).sum(1)
    return torch.where(signed[:, None, None] < 0, corners.flip(1), corners)


def _inside(points: Tensor, corners: Tensor) -> Tensor:
    """Return which of ``points`` lie in anticlockwise quadrilaterals, edges included but for rounding: ``(B, 4)``."""
    edges = (corners.roll(-1, dims=1) - corners)[:, None]
    sides = _cross(edges, points[:, :, None] - corners[:, None])  # B, point, edge
    return (sides >= -1e-12 * edges.square().sum(-1)).all(2)


def _crossings(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each edge of the one meets each of the other, ``(B, 16, 2)``, and whether it does."""
    a, b = first[:, :, None], second[:, None]
    along_a, along_b = first.roll(-1, dims=1)[:, :, None] - a, second.roll(-1, dims=1)[:, None] - b
    slant = _cross(along_a, along_b)
    parallel = slant.abs() <= 1e-12 * (along_a.square().sum(-1) * along_b.square().sum(-1)).sqrt()
    slant = slant.where(~parallel, 1.0)
    s, t = _cross(b - a, along_b) / slant, _cross(b - a, along_a) / slant
    meet = ~parallel & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    return (a + s[..., None] * along_a).flatten(1, 2), meet.flatten(1, 2)
