"""Similarity of two maps, and total variation of one: pure functions, one value per image.

Maps are ``(B, H, W)``, floating-point, finite and not negative; everything is computed in float64. ``where``,
``(B, H, W)`` and boolean, restricts a comparison to some of the positions. Undefined values are NaN: see each function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate._shapes import Bool, Float

__all__ = [
    "FLAT",
    "correlation",
    "half_maximum",
    "half_maximum_iou",
    "total_variation",
]

FLAT = 1e-5
"""Largest standard deviation of a flat map, as a share of its maximum: rounding alone can cause it."""


def correlation(
    maps: Float[Tensor, "batch height width"],
    others: Float[Tensor, "batch height width"],
    where: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """Return Pearson's correlation over the positions of each image, in [−1, 1].

    Invariant to ``a A + b`` with ``a > 0``: it compares directions, not magnitudes. NaN where either map is flat (see
    `FLAT`), or fewer than two positions are compared.
    """
    maps, others, chosen = _compared(maps, others, where)
    number = chosen.sum((1, 2))
    deviations = []
    for values in (maps, others):
        mean = (values * chosen).sum((1, 2)) / number
        deviations.append((values - mean[:, None, None]) * chosen)
    covariance = (deviations[0] * deviations[1]).sum((1, 2)) / number
    spreads = [(deviation.square().sum((1, 2)) / number).sqrt() for deviation in deviations]
    result = (covariance / (spreads[0] * spreads[1])).clamp(-1, 1)
    flat = [
        spread <= FLAT * values.where(chosen, 0).amax((1, 2))
        for spread, values in zip(spreads, (maps, others), strict=True)
    ]
    return result.where(~flat[0] & ~flat[1] & (number > 1), torch.nan)


def half_maximum(
    maps: Float[Tensor, "batch height width"], where: Bool[Tensor, "batch height width"] | None = None
) -> Bool[Tensor, "batch height width"]:
    """Return where a map is at least half as high as its maximum (over ``where``).

    Nothing is subtracted first, so a map that is flat, or nowhere below half its maximum, is all inside.
    """
    maps, _, chosen = _compared(maps, maps, where)
    return (maps >= maps.where(chosen, 0).amax((1, 2), keepdim=True) / 2) & chosen


def half_maximum_iou(
    maps: Float[Tensor, "batch height width"],
    others: Float[Tensor, "batch height width"],
    where: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """Return the IoU of the regions of `half_maximum`, in [0, 1].

    Two maps that are all inside have an IoU of 1: report the size of the regions and the value for unrelated images
    beside it. NaN where either map is zero everywhere, or no position is compared.
    """
    maps, others, chosen = _compared(maps, others, where)
    first, second = half_maximum(maps, chosen), half_maximum(others, chosen)
    result = (first & second).sum((1, 2)) / (first | second).sum((1, 2)).double()
    empty = [(values.where(chosen, 0).amax((1, 2)) <= 0) for values in (maps, others)]
    return result.where(~empty[0] & ~empty[1], torch.nan)


def total_variation(maps: Float[Tensor, "batch height width"]) -> Float[Tensor, " batch"]:
    """Return the total variation of each map, at its own resolution.

        TV(A) = mean over rows of Σ_j |A_i,j+1 − A_ij|  +  mean over columns of Σ_i |A_i+1,j − A_ij|

    This is ``∫ |∂A/∂x| + |∂A/∂y|`` over an image of side 1: of a gate that is 1 inside an upright rectangle and 0
    outside it is the rectangle's circumference in sides of the image (the part inside the image), at any
    resolution. A flat map has 0.
    """
    maps = _maps("maps", maps)
    return maps.diff(dim=2).abs().sum(2).mean(1) + maps.diff(dim=1).abs().sum(1).mean(1)


def _compared(maps: Tensor, others: Tensor, where: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    maps, others = _maps("maps", maps), _maps("others", others)
    if maps.shape != others.shape:
        raise ValueError(
            f"maps and others must be of one shape; got {tuple(maps.shape)} and {tuple(others.shape)}. "
            "Bring them to the size of the image with AttentionRecord.resampled"
        )
    if where is None:
        return maps, others, torch.ones_like(maps, dtype=torch.bool)
    if where.shape != maps.shape or where.dtype != torch.bool:
        raise ValueError(
            f"where must be boolean, of the maps' shape {tuple(maps.shape)}; got {where.dtype}, {tuple(where.shape)}"
        )
    return maps, others, where


def _maps(name: str, maps: Tensor) -> Tensor:
    if maps.ndim != 3 or 0 in maps.shape or not maps.is_floating_point():
        raise ValueError(
            f"{name} must be floating-point maps (B, H, W) with at least one position; got {maps.dtype} of shape "
            f"{tuple(maps.shape)}"
        )
    if not (maps.isfinite().all() and maps.min() >= 0):
        raise ValueError(f"{name} must be finite and not negative; of a map with signs give the magnitudes")
    return maps.double()
