"""Memory layouts: a result has the layout of its input."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["by_position", "in_layout_of", "is_channels_last", "merge_heads", "split_heads", "to_channels_last"]


def is_channels_last(x: Tensor) -> bool:
    """Tell whether ``x`` is stored with the channels last; strides decide for one channel, which is both.

    An exported or traced graph has one layout for inputs of all sizes, the contiguous one; within a transform of
    `torch.func` no other is known.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and x.stride(1) == 1


def in_layout_of(like: Tensor, x: Tensor) -> Tensor:
    """Return ``x`` in channels_last if ``like`` is, else contiguous."""
    if not is_channels_last(like):
        return x.contiguous()
    if x.shape[1] == 1:  # contiguous either way, but a concatenation follows the strides
        return x.clone(memory_format=torch.channels_last)
    return to_channels_last(x)


def to_channels_last(x: Tensor) -> Tensor:
    """Return ``x`` in channels_last, or as it is where layouts are not known: within `torch.func`, with a tangent."""
    if torch._C._are_functorch_transforms_active():
        return x
    if not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None:
        return x
    return x.contiguous(memory_format=torch.channels_last)


def by_position(x: Tensor) -> Tensor:
    """Return an empty tensor like ``x``, ``(B, heads, H, W, d)``, whose memory is ordered ``(B, H, W, heads, d)``."""
    batch, heads, height, width, dim = x.shape
    return x.new_empty(batch, height, width, heads, dim).permute(0, 3, 1, 2, 4)


def split_heads(x: Tensor, sizes: tuple[int, ...], num_heads: int) -> tuple[Tensor, ...]:
    """Split ``(B, sum(sizes), H, W)`` into one ``(B, heads, H, W, size / heads)`` view for each size."""
    # The gradient of a split into one would be copied.
    parts = zip((x,) if len(sizes) == 1 else x.split(sizes, dim=1), sizes, strict=True)
    batch, _, height, width = x.shape  # not `unflatten`, after which ONNX fixes the sizes of the example
    return tuple(
        part.view(batch, num_heads, size // num_heads, height, width).permute(0, 1, 3, 4, 2) for part, size in parts
    )


def merge_heads(x: Tensor) -> Tensor:
    """Bring ``(B, heads, H, W, d)`` to ``(B, heads·d, H, W)``; in channels_last, if memory is ordered by heads."""
    # Flattened where the batch comes before H: for a single image, flattening (heads, d) next to the batch leaves
    # it a stride that passes for channels_last but is not, and batch normalization then sums the wrong gradient.
    return x.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
