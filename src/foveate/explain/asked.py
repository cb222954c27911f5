"""Pixels and boxes of an image that somebody asks about."""

from __future__ import annotations

from collections.abc import Sequence

from foveate import _checks

__all__ = ["Box", "box_inside", "inside"]

Box = tuple[float, float, float, float]
"""``x_min, y_min, x_max, y_max`` in pixels, the last two exclusive."""


def box_inside(box: Sequence[float], image_size: tuple[int, int]) -> Box:
    """Return ``box`` if it is a box with an area in an image of this size, else raise a `ValueError`."""
    if not isinstance(box, tuple | list) or len(box) != 4:
        raise ValueError(f"box must be (x_min, y_min, x_max, y_max); got {box!r}")
    x_min, y_min, x_max, y_max = (_checks.number("box", value, minimum=0) for value in box)
    height, width = image_size
    if not (x_min < x_max <= width and y_min < y_max <= height):
        raise ValueError(
            f"box={tuple(box)} must be (x_min, y_min, x_max, y_max) with an area, inside {height}×{width} pixels"
        )
    return x_min, y_min, x_max, y_max


def inside(query: tuple[int, int], image_size: tuple[int, int]) -> tuple[int, int]:
    """Return ``query`` if it is ``(row, column)`` of a pixel of an image of this size, else raise a `ValueError`."""
    query = _checks.pair("query", query, minimum=0)
    if any(at >= side for at, side in zip(query, image_size, strict=True)):
        raise ValueError(f"query={query} lies outside of images of {image_size[0]}×{image_size[1]} pixels")
    return query
