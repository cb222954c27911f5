"""Scores for how well maps localize the object whose box is known: pure functions, one value per image.

Maps are ``(B, H, W)``, finite and not negative. Boxes are ``(B, 4)``: ``x_min, y_min, x_max, y_max`` in pixels of the
maps, fractions allowed, counted along the edges of the pixels, so that pixel ``j`` reaches from ``j`` to ``j + 1``.
Everything is computed in float64. Three cases are decided the same way for every score:

- **Ties.** Values are compared in steps of a millionth of the map's maximum (`TIE`), so rounding does not split equal
  values. Where a choice depends on the tied values, the score is its expectation over them.
- **Flat maps** prefer no place: their maxima are all pixels, their box is the whole map, and a map of zeros spreads its
  energy evenly. They score what pointing blindly scores.
- **Empty boxes**, those that hold the center of no pixel (a crop can leave a box like that), have no scores: they are
  NaN, which `estimate` leaves out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from foveate import _checks

__all__ = [
    "box_above",
    "box_iou",
    "component_iou",
    "corners_box",
    "energy_inside",
    "levels",
    "max_box_acc",
    "pointing_game",
]

Floats = NDArray[np.float64]

TIE = 1e-6
"""Difference below which values count as equal, as a share of the map's maximum."""


def pointing_game(maps: ArrayLike, boxes: ArrayLike) -> Floats:
    """Return for each image whether the maximum of the map lies in the true box: ``(B,)`` in [0, 1].

    A pixel lies in the box if its center does. Of several maxima each counts for its share,

        score = |{maxima in the box}| / |{maxima}|,

    which is the expected result of pointing at one of them at random; for a flat map it is the box's share of the
    pixels. Source: Zhang et al., *Top-down Neural Attention by Excitation Backprop* (2018, arXiv 1608.00507), without
    the margin of 15 pixels that they allow around the box.

    Examples:
        >>> foveate.explain.pointing_game([[[0.1, 0.9, 0.2]]], [[1, 0, 2, 1]])
        array([1.])
    """
    maps, boxes = _maps_and_boxes(maps, boxes)
    ranks = levels(maps)
    maxima = ranks == ranks.max((1, 2), keepdims=True)
    rows, columns = _inside(boxes, maps.shape)
    hits = (maxima & rows[:, :, None] & columns[:, None, :]).sum((1, 2))
    return _where_there_is_truth(hits / maxima.sum((1, 2)), boxes, maps.shape)


def energy_inside(maps: ArrayLike, boxes: ArrayLike) -> Floats:
    """Return the share of each map's sum that lies in the true box: ``(B,)`` in [0, 1].

    A pixel that the box covers in part counts with the part. Source: Wang et al., *Score-CAM* (2020, arXiv 1910.01279),
    there called the energy-based pointing game.

    Examples:
        >>> foveate.explain.energy_inside([[[1.0, 2.0, 1.0]]], [[1, 0, 2, 1]])
        array([0.5])
    """
    maps, boxes = _maps_and_boxes(maps, boxes)
    columns, rows = (_covered(boxes[:, axis::2], maps.shape[2 - axis]) for axis in (0, 1))
    total = maps.sum((1, 2), keepdims=True)
    shares = np.where(total > 0, maps, 1.0) / np.where(total > 0, total, maps[0].size)
    return _where_there_is_truth(np.einsum("bij,bi,bj->b", shares, rows, columns), boxes, maps.shape)


def box_above(maps: ArrayLike, *, share: float = 0.5) -> Floats:
    """Return the tightest box ``(B, 4)`` around all pixels of at least ``share`` of their map's maximum.

    For a gate that is open in one rectangle this is the box of its half maximum. Of a flat map it is the whole map.

    Examples:
        >>> foveate.explain.box_above([[[0.1, 0.9, 0.6, 0.2]]])
        array([[1., 0., 3., 1.]])
    """
    maps = _maps(maps)
    _checks.number("share", share, above=0, maximum=1)
    ranks = levels(maps)
    return _tightest(ranks >= share * ranks.max((1, 2), keepdims=True))


def corners_box(corners: ArrayLike, size: tuple[int, int]) -> Floats:
    """Return the upright box ``(B, 4)`` around rectangles given by corners ``(B, 4, 2)``, clipped to a map of ``size``.

    Corners are x and y in pixels of the map, as in `AttentionRecord.rectangle`; ``size`` is height and width.

    Examples:
        >>> foveate.explain.corners_box([[[2, -1], [5, 2], [2, 5], [-1, 2]]], (8, 4))
        array([[0., 0., 4., 5.]])
    """
    points = np.asarray(corners, np.float64)
    if points.ndim != 3 or points.shape[1:] != (4, 2):
        raise ValueError(f"corners must be (B, 4, 2), x and y; got shape {points.shape}")
    height, width = _checks.pair("size", size)
    return np.concatenate([points.min(1), points.max(1)], axis=1).clip(0, [width, height, width, height])


def box_iou(found: ArrayLike, boxes: ArrayLike, size: tuple[int, int]) -> Floats:
    """Return the intersection over the union of each found box with the true one: ``(B,)`` in [0, 1].

    A found box without area has an IoU of 0. The ``size`` of the maps determines the true boxes that are empty.

    Examples:
        >>> foveate.explain.box_iou([[0, 0, 2, 2]], [[0, 0, 4, 2]], (8, 8))
        array([0.5])
    """
    found, boxes = _boxes(found), _boxes(boxes)
    if len(found) != len(boxes):
        raise ValueError(f"there must be one found box for each true one; got {len(found)} for {len(boxes)}")
    height, width = _checks.pair("size", size)
    return _where_there_is_truth(_iou(found, boxes), boxes, (len(boxes), height, width))


def component_iou(maps: ArrayLike, boxes: ArrayLike, *, thresholds: int = 100) -> Floats:
    """Return for each image and threshold the IoU of the true box with that of the largest component: ``(B, T)``.

    The map is scaled to [0, 1] by its own minimum and maximum. At threshold ``τ_t = t/T``, t from 0, the box is the
    tightest around the largest 8-connected component of ``{map ≥ τ_t}``; of several equally large ones, around the
    first in row-major order. A flat map has the whole map as its box at every threshold.

    `max_box_acc` turns this into MaxBoxAcc as in Choe et al., *Evaluating Weakly Supervised Object Localization Methods
    Right* (2020, arXiv 2001.07437). They take 1,000 thresholds, and flat maps, all zero there, get no box.

    Examples:
        >>> foveate.explain.component_iou([[[0.0, 1.0, 0.5, 0.0]]], [[1, 0, 2, 1]], thresholds=4)
        array([[0.25, 0.5 , 0.5 , 1.  ]])
    """
    maps, boxes = _maps_and_boxes(maps, boxes)
    number = _checks.integer("thresholds", thresholds)
    ranks = levels(maps)
    low = ranks.min((1, 2), keepdims=True)
    span = ranks.max((1, 2), keepdims=True) - low
    scaled = np.where(span > 0, (ranks - low) / np.maximum(span, 1), 1.0)
    # Zeros above and below keep components within their image, so that one call labels all.
    within_image = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
    found = [_tightest(_largest_component(scaled >= t / number, within_image)) for t in range(number)]
    values = np.stack([_iou(box, boxes) for box in found], axis=1)
    return _where_there_is_truth(values, boxes, maps.shape)


def max_box_acc(ious: ArrayLike, minimum: float = 0.5) -> tuple[Floats, int]:
    """Return for each image whether its object is found, ``(B,)`` of 0 and 1, at the best threshold, and its index.

        MaxBoxAcc(δ) = max_t  mean_b [IoU_bt ≥ δ],    δ = minimum

    is the mean of the result. The threshold, the lowest of equals, is chosen on these very images, which favors every
    map a little, one with many levels more than one with few. ``ious`` are those of `component_iou`; empty boxes are
    NaN here as there.

    Examples:
        >>> foveate.explain.max_box_acc([[0.2, 0.6], [0.4, 0.7]])
        (array([1., 1.]), 1)
    """
    overlaps = np.asarray(ious, np.float64)
    if overlaps.ndim != 2 or not overlaps.shape[1]:
        raise ValueError(f"ious must be (B, T), as component_iou gives them; got shape {overlaps.shape}")
    found = np.where(np.isnan(overlaps), np.nan, overlaps >= _checks.number("minimum", minimum, minimum=0, maximum=1))
    best = int(np.nansum(found, axis=0).argmax())
    return found[:, best], best


def levels(maps: ArrayLike) -> Floats:
    """Return maps in whole steps of `TIE` of their maximum, rounded: values on one step count as equal."""
    maps = _maps(maps)
    highest = maps.max((1, 2), keepdims=True)
    return np.rint(maps / np.where(highest > 0, highest, 1.0) / TIE)


def _largest_component(mask: NDArray[np.bool_], structure: Floats) -> NDArray[np.bool_]:
    """Return, for each image of ``mask``, its largest connected component; of equals the one with the lowest label."""
    labels, number = ndimage.label(mask, structure)
    sizes = np.bincount(labels.ravel(), minlength=number + 1)
    sizes[0] = 0
    owner = np.zeros(number + 1, np.int64)
    owner[labels] = np.arange(len(mask))[:, None, None]  # labels are not shared between images
    owner[0] = -1
    order = np.lexsort((-np.arange(number + 1), sizes, owner))  # the last of each image is its largest
    last = np.append(owner[order][1:] != owner[order][:-1], True)
    chosen = np.zeros(len(mask), np.int64)
    chosen[owner[order[last]]] = order[last]
    return labels == chosen[:, None, None]


def _tightest(mask: NDArray[np.bool_]) -> Floats:
    """Return the tightest box ``(B, 4)`` around what is true in each mask, which is not empty."""
    found = []
    for axis in (1, 2):  # over rows, for columns, and the other way
        line: NDArray[np.bool_] = np.any(mask, axis=axis)
        found.append((line.argmax(1), line.shape[1] - line[:, ::-1].argmax(1)))
    (left, right), (top, bottom) = found
    return np.stack([left, top, right, bottom], axis=1).astype(np.float64)


def _iou(found: Floats, boxes: Floats) -> Floats:
    sides = np.minimum(found[:, 2:], boxes[:, 2:]) - np.maximum(found[:, :2], boxes[:, :2])
    shared = sides.clip(0).prod(1)
    union = sum((box[:, 2:] - box[:, :2]).prod(1) for box in (found, boxes)) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _inside(boxes: Floats, shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for the rows ``(B, H)`` and the columns ``(B, W)`` of a map whether their centers lie in the box."""
    y, x = (np.arange(side) + 0.5 for side in shape[1:])
    rows = (boxes[:, 1:2] <= y) & (y < boxes[:, 3:4])
    return rows, (boxes[:, 0:1] <= x) & (x < boxes[:, 2:3])


def _covered(interval: Floats, side: int) -> Floats:
    """Return the share of each of ``side`` pixels that lies in intervals ``(B, 2)``: ``(B, side)`` in [0, 1]."""
    edges = np.arange(side)
    return (np.minimum(interval[:, 1:], edges + 1) - np.maximum(interval[:, :1], edges)).clip(0)


def _where_there_is_truth(values: Floats, boxes: Floats, shape: tuple[int, ...]) -> Floats:
    rows, columns = _inside(boxes, shape)
    empty = ~(rows.any(1) & columns.any(1))
    values[empty] = np.nan
    return values


def _maps_and_boxes(maps: ArrayLike, boxes: ArrayLike) -> tuple[Floats, Floats]:
    maps, boxes = _maps(maps), _boxes(boxes)
    if len(maps) != len(boxes):
        raise ValueError(f"there must be one box for each map; got {len(boxes)} boxes for {len(maps)} maps")
    return maps, boxes


def _maps(maps: ArrayLike) -> Floats:
    checked = np.asarray(maps, np.float64)
    if checked.ndim != 3 or 0 in checked.shape:
        raise ValueError(f"maps must be (B, H, W) with at least one pixel; got shape {checked.shape}")
    if not (np.isfinite(checked).all() and checked.min() >= 0):
        raise ValueError("maps must be finite and not negative; of a map with signs give the magnitudes")
    return checked


def _boxes(boxes: ArrayLike) -> Floats:
    checked = np.asarray(boxes, np.float64)
    if checked.ndim != 2 or checked.shape[1] != 4:
        raise ValueError(f"boxes must be (B, 4): x_min, y_min, x_max, y_max; got shape {checked.shape}")
    if not (np.isfinite(checked).all() and (checked[:, :2] <= checked[:, 2:]).all()):
        raise ValueError("boxes must be finite, with x_min <= x_max and y_min <= y_max")
    return checked
