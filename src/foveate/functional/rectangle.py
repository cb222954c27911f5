"""Convolutional rectangular attention (CRAM): a gate in the shape of one soft, oriented rectangle.

Source: Nguyen et al., *Convolutional Rectangular Attention Module* (2025, arXiv 2503.10875).
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate._checks import integer, number
from foveate._shapes import AnyShape, Float, Line, Rectangles
from foveate.functional._plain import any_size
from foveate.functional._precision import autocast_off, upcast

__all__ = ["check_rectangle", "draw_rectangles", "pixel_centers", "rectangle_corners", "rectangle_map"]


def pixel_centers(size: int, like: AnyShape) -> Line:
    """Return the coordinates of the centers of ``size`` pixels that tile [−1, 1]: ``(2j + 1 − size)/size``.

    The edges of the map, not the centers of its outermost pixels, lie at ±1; so one rectangle means the same
    part of the image at every resolution. Dtype and device are those of ``like``.

    Examples:
        >>> FA.pixel_centers(4, torch.tensor(0.0))
        tensor([-0.7500, -0.2500,  0.2500,  0.7500])
    """
    if not torch.jit.is_scripting():
        _check_size(size)
    return torch.arange(1 - size, size, 2, device=like.device, dtype=like.dtype) / size


def _check_size(size: int) -> None:
    if not any_size():  # where it may be a symbol
        integer("size", size)


def rectangle_map(
    rectangle: Rectangles, height: int, width: int, *, sharpness: float = 5.0
) -> Float[Tensor, "batch 1 {height} {width}"]:
    """Draw soft rectangles: ``A(p) = σ(τ(s_x − |u|)) · σ(τ(s_y − |v|))``, gates in [0, 1], in at least float32.

    ``(u, v)`` are the coordinates of the pixel center ``p`` after translation by ``−c`` and rotation by ``−α``,

        u =  cos α (x − c_x) + sin α (y − c_y),
        v = −sin α (x − c_x) + cos α (y − c_y),

    computed by arithmetic: nothing is resampled. ``x`` runs to the right and ``y`` down, so a positive angle
    turns the rectangle clockwise on the screen. Both axes span [−1, 1] whatever the aspect ratio of the map: on
    a map that is not square, an inclined rectangle is one in these coordinates and a parallelogram in pixels.

    Args:
        rectangle: Center ``c_x, c_y``, half-sizes ``s_x, s_y`` and angle ``α`` in radians.
        height: Rows of the map.
        width: Columns of the map.
        sharpness: ``τ > 0``; from 88 % to 12 % the gate falls over a width of ``4/τ``.

    Examples:
        >>> left_half = torch.tensor([[-0.5, 0.0, 0.5, 1.0, 0.0]])
        >>> FA.rectangle_map(left_half, 1, 4, sharpness=50.0).round()
        tensor([[[[1., 1., 0., 0.]]]])
    """
    check_rectangle(rectangle)
    number("sharpness", sharpness, above=0)
    if not any_size():  # where sizes are symbols or tensors
        integer("height", height)
        integer("width", width)
    with autocast_off(rectangle):
        rectangle = upcast(rectangle)
        x = pixel_centers(width, rectangle)
        y = x if not any_size() and height == width else pixel_centers(height, rectangle)
        return draw_rectangles(rectangle, x, y, sharpness)


def draw_rectangles(rectangle: Tensor, x: Tensor, y: Tensor, sharpness: float) -> Tensor:
    """Compute `rectangle_map` at the coordinates ``x`` of the columns and ``y`` of the rows; scriptable."""
    cx, cy, sx, sy, angle = rectangle[:, :, None, None].unbind(1)  # each B, 1, 1
    dx, dy = x - cx, y[:, None] - cy  # B, 1, W and B, H, 1
    cos, sin = angle.cos(), angle.sin()
    u = cos * dx + sin * dy
    v = cos * dy - sin * dx
    gate = (sharpness * (sx - u.abs())).sigmoid() * (sharpness * (sy - v.abs())).sigmoid()
    return gate.unsqueeze(1)


def rectangle_corners(rectangle: Rectangles) -> Float[Tensor, "batch 4 2"]:
    """Return the corners of rectangles as ``(x, y)`` in [−1, 1] coordinates, in at least float32.

    In the rectangle's own frame they come in the order (−s_x, −s_y), (s_x, −s_y), (s_x, s_y), (−s_x, s_y):
    clockwise on the screen. Pixels of an image ``(H, W)`` are ``(x + 1)·W/2`` and ``(y + 1)·H/2``.

    Examples:
        >>> FA.rectangle_corners(torch.tensor([[0.0, 0.0, 1.0, 0.5, 0.0]])).tolist()
        [[[-1.0, -0.5], [1.0, -0.5], [1.0, 0.5], [-1.0, 0.5]]]
    """
    check_rectangle(rectangle)
    with autocast_off(rectangle):
        cx, cy, sx, sy, angle = upcast(rectangle)[..., None].unbind(1)  # each B, 1
        signs = torch.tensor([[-1, 1, 1, -1], [-1, -1, 1, 1]], device=cx.device, dtype=cx.dtype)
        u, v = sx * signs[0], sy * signs[1]  # B, 4
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cx + cos * u - sin * v, cy + sin * u + cos * v], dim=-1)


def check_rectangle(rectangle: Tensor) -> None:
    """Raise a `ValueError` unless ``rectangle`` holds five floating-point numbers a row."""
    if rectangle.ndim != 2 or (not torch.jit.is_tracing() and rectangle.shape[1] != 5):
        raise ValueError(
            f"a rectangle is five numbers a row, (B, 5): cx, cy, sx, sy, angle; got shape {tuple(rectangle.shape)}"
        )
    if not rectangle.is_floating_point():
        raise ValueError(f"rectangles must be floating-point; got {rectangle.dtype}. Convert them with .float()")
