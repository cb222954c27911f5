"""How much of what a region of an image attends to lies in the region itself."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate import _checks
from foveate._shapes import Float
from foveate.explain.records import AttentionRecord

__all__ = ["mass_inside", "region_shares"]


def mass_inside(
    record: AttentionRecord,
    regions: Float[Tensor, "regions height width"],
    *,
    image: int = 0,
    part: str = "both",
    view: Float[Tensor, "height width"] | None = None,
) -> Float[Tensor, " regions"]:
    """Return for each region of an image the share of its attention that stays inside of it: ``(R,)``, float64.

    With ``c_j`` in [0, 1] the share of the map's position ``j`` that the region covers,

        mass = Σ_hij c_i |A_hij| c_j / Σ_hij c_i |A_hij|      (h over heads, i and j over positions)

    for N×N maps: what the positions in the region take from the region, of all that they take. A gate ``g`` has no
    attending position: ``mass = Σ_j g_j c_j / Σ_j g_j``, the share of what passes. Uniform attention has the region's
    share of the image, ``mean(region_shares(…))``, and a map of zeros counts as uniform. A mechanism that attends
    nearby has a high mass whatever it has learned; the weights of another image tell the two apart, as
    ``foveate score`` does. For gates this is `energy_inside` with a mask in place of a box.

    Args:
        record: Of a batch of images.
        regions: Of an image of ``record.image_size``, 1 inside and 0 outside, or shares between.
        image: Which image's weights, by its place in the batch.
        part: ``content``, ``positional`` or ``both``, for global self-attention.
        view: 1 where the image is and 0 where it is padded, ``c_j`` of which is a factor below the line: what is
            attended to in the padding does not count. Not given: nothing is padded.

    Returns:
        NaN for a region without an area.

    Raises:
        ValueError: The regions are of another size or outside of [0, 1], or the weights have no such part.

    Examples:
        >>> network = timm.create_model("gsa_resnet_tiny")
        >>> record = foveate.explain(network, torch.randn(1, 3, 32, 32))["layer3.0.conv2"]
        >>> left = torch.zeros(1, 32, 32)
        >>> left[:, :, :8] = 1
        >>> foveate.explain.region_shares(left, (16, 16)).mean(), foveate.explain.mass_inside(record, left).shape
        (tensor(0.2500, dtype=torch.float64), torch.Size([1]))
    """
    if tuple(regions.shape[1:]) != record.image_size:
        height, width = record.image_size
        raise ValueError(f"regions must be (R, {height}, {width}), as the image; got shape {tuple(regions.shape)}")
    cover = region_shares(regions, (record.map.shape[1], record.map.shape[2]))
    if record.weights is None:
        _checks.one_of("part", part, ("both",))
        if _checks.integer("image", image, minimum=0) >= len(record.map):
            raise ValueError(f"image must be below {len(record.map)}, the number of images; got {image}")
        taken = record.map[image].double().expand_as(cover)
    else:
        taken = record.weights.taken_by_regions(cover, image=image, part=part).double()
    total = taken.sum((1, 2), keepdim=True)
    taken = torch.where(total == 0, 1.0, taken)
    seen = taken if view is None else taken * region_shares(view[None], (cover.shape[1], cover.shape[2]))
    mass = (taken * cover).sum((1, 2)) / seen.sum((1, 2))
    return torch.where(cover.sum((1, 2)) > 0, mass, torch.nan)


def region_shares(
    regions: Float[Tensor, "regions height width"], size: tuple[int, int]
) -> Float[Tensor, "regions rows columns"]:
    """Return the share of each position of a map of ``size`` that each region covers, in float64.

    The map spans the image; a pixel that lies in several positions counts in each with its part.

    Raises:
        ValueError: The regions are not ``(R, H, W)`` or have values outside of [0, 1].

    Examples:
        >>> foveate.explain.region_shares(torch.tensor([[[1, 1, 0]]]), (1, 2))
        tensor([[[1.0000, 0.3333]]], dtype=torch.float64)
    """
    if regions.ndim != 3:
        raise ValueError(f"regions must be (R, H, W); got shape {tuple(regions.shape)}")
    values = regions.cpu().double()
    if values.numel() and not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError("regions must be 1 inside and 0 outside, or shares between")
    down, across = (_overlaps(number, side) for number, side in zip(size, regions.shape[1:], strict=True))
    return (down @ values @ across.T).clamp(0, 1)


def _overlaps(number: int, side: int) -> Tensor:
    """Return the share of each of ``number`` positions along a side that each of its pixels is: rows sum to 1."""
    edges = torch.arange(number + 1, dtype=torch.double) * side / number
    pixels = torch.arange(side, dtype=torch.double)
    low, high = torch.maximum(edges[:-1, None], pixels), torch.minimum(edges[1:, None], pixels + 1)
    return (high - low).clamp(min=0) * number / side
