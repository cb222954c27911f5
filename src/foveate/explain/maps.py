"""What the attention modules of a network attended to, read from their public maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveate import _checks
from foveate._networks import attention_modules, evaluating
from foveate.functional import rectangle_corners
from foveate.nn import GlobalSelfAttention2d

__all__ = ["GATE", "RECEIVED", "AttentionRecord", "Scale", "attention_records"]

MAX_WEIGHTS = 1 << 27
"""Most weights of one image's N×N map that are formed: half a GiB in float32."""


@dataclass(frozen=True)
class Scale:
    """What the values of a map mean, and the range in which they are drawn, the same for every image and network."""

    low: float
    high: float
    meaning: str


GATE = Scale(0.0, 1.0, "gate: the share of each feature that passes, from 0 (none) to 1 (all)")
RECEIVED = Scale(
    0.0,
    4.0,
    "attention received, against uniform attention: 1 is as much as every position would receive if all received the "
    "same; 4 and more look alike",
)
QUERIED = Scale(0.0, 4.0, RECEIVED.meaning.replace("attention received", "attention received from one position"))


@dataclass(frozen=True, eq=False)
class AttentionRecord:
    """What one attention module attended to, for each image of a batch.

    Where a module weighs every position for every other (an N×N map), ``map`` is what is left of it in two
    dimensions: the weight that each position *receives*, from all positions or from the one asked for, as a share of
    the whole and in units of the uniform share ``1/N``,

        map_j = N · Σ_hi |A_hij| / Σ_hij |A_hij|      (h over heads, i over positions or the one asked for)

    A map that is flat has the value 1 everywhere. Rows of a softmax or a kernel sum to 1, so that for these it is the
    mean over heads and positions, times N. The weights of global self-attention have a sign; their magnitude counts.
    """

    name: str
    """The module's name in the network."""
    kind: str
    """Its class."""
    map: Tensor
    """``(B, h, w)``, float32, on the CPU, at the resolution that is attended to."""
    scale: Scale
    image_size: tuple[int, int]
    """Height and width of the images, in pixels; the map is taken to span them."""
    query: tuple[int, int] | None = None
    """Row and column of the image pixel whose position attends; None for all positions together."""
    rectangle: Tensor | None = None
    """``(B, 4, 2)``: the corners of CRAM's rectangle as (x, y) in image pixels, the image from 0 to its width and
    height; clockwise on the screen."""
    radius: float | None = None
    """ExpAtt's radius in pixels of the map."""
    radius_image: tuple[float, float] | None = None
    """The same in image pixels, along x and along y."""


def attention_records(
    model: nn.Module,
    images: Tensor,
    *,
    query: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> list[AttentionRecord]:
    """Return what the attention modules of ``model`` attended to in ``images``, in the order in which they ran.

    One pass in evaluation mode without gradients; each module's ``attention_map`` is asked for the input that the
    module gets in it. The model is left exactly as it was, also when the pass fails. A network without attention
    gives an empty list.

    Args:
        model: Any network; modules with an ``attention_map`` are found wherever they are, those of `foveate.insert`
            included.
        images: ``(B, C, H, W)`` as the network takes them (normalised), on its device.
        query: ``(row, column)`` of an image pixel: of N×N maps, show what the position that covers it attends to.
            Gates, which are the same for every position, do not change.
        names: Modules to ask; all if not given.

    Raises:
        ValueError: ``query`` lies outside of the images, a name is not that of an attention module, or a map would
            have more than ``MAX_WEIGHTS`` weights.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images must be a batch (B, C, H, W) of at least one; got shape {tuple(images.shape)}")
    if query is not None:
        query = _checks.pair("query", query, minimum=0)
        if any(at >= side for at, side in zip(query, images.shape[2:], strict=True)):
            raise ValueError(f"query={query} lies outside of images of {images.shape[2]}×{images.shape[3]} pixels")
    modules = attention_modules(model)
    for name in names or ():
        _checks.one_of("a name in names", name, modules)
    records: list[AttentionRecord] = []

    def observe(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: records.append(_record(name, module, inputs[0], images, query))

    handles = [modules[name].register_forward_pre_hook(observe(name)) for name in (modules if names is None else names)]
    try:
        with evaluating(model), torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return records


def _record(name: str, module: Any, x: Tensor, images: Tensor, query: tuple[int, int] | None) -> AttentionRecord:
    """Ask ``module`` what it attends to in its input ``x``."""
    size = (images.shape[2], images.shape[3])
    if not hasattr(module, "values"):  # a gate weighs positions, it does not mix them
        gate = module.attention_map(x)[:, 0]
        corners = None
        if hasattr(module, "rectangle"):
            corners = (rectangle_corners(module.rectangle(x)) + 1) / 2 * x.new_tensor([size[1], size[0]])
            corners = corners.float().cpu()
        return AttentionRecord(name, type(module).__name__, gate.float().cpu(), GATE, size, rectangle=corners)
    # One image at a time: the maps of a batch seldom fit in memory.
    weights = [_received(name, module, x[index : index + 1], size, query) for index in range(len(x))]
    received = torch.cat(weights).float().cpu()
    radius = radius_image = None
    if hasattr(module, "radius"):
        radius = module.radius.item()
        radius_image = (radius * size[1] / received.shape[2], radius * size[0] / received.shape[1])
    return AttentionRecord(
        name,
        type(module).__name__,
        received,
        RECEIVED if query is None else QUERIED,
        size,
        query,
        radius=radius,
        radius_image=radius_image,
    )


def _received(name: str, module: Any, x: Tensor, image_size: tuple[int, int], query: tuple[int, int] | None) -> Tensor:
    """Return how much each position receives, ``(1, h, w)``, in units of the uniform share."""
    height, width = x.shape[2:]
    stride = _stride_before_attention(module)
    height, width = -(-height // stride), -(-width // stride)
    weights = getattr(module, "num_heads", 1) * (height * width) ** 2
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"the map of {name} at {height}×{width} has {weights:.2g} weights, more than the {MAX_WEIGHTS:.2g} that "
            "are formed; leave it out with names=…, or give smaller images"
        )
    attention = module.attention_map(x).abs()  # 1, heads, N, N
    if query is not None:
        row, column = query[0] * height // image_size[0], query[1] * width // image_size[1]
        attention = attention[:, :, row * width + column : row * width + column + 1]
    received = attention.sum((1, 2))
    total = received.sum(1, keepdim=True)
    # Attention that comes to nothing, as that of GSA to an empty input, prefers no position.
    share = torch.where(total > 0, received / total, 1 / received.shape[1])
    return (share * height * width).view(1, height, width)


def _stride_before_attention(module: Any) -> int:
    """Return by how much a module pools its input before it attends; global self-attention pools afterwards."""
    if isinstance(module, GlobalSelfAttention2d):
        return 1
    return int(getattr(module, "stride", 1)) * (2 if getattr(module, "downsample", False) else 1)
