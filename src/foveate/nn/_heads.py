"""Channels to heads and back."""

from __future__ import annotations

from torch import Tensor

from foveate._checks import integer

__all__ = ["divisible", "merge_heads", "split_heads"]


def divisible(name: str, channels: int, num_heads: int) -> int:
    """Return ``channels`` if ``num_heads`` divides it, else raise a `ValueError` that says which heads would do."""
    integer(name, channels)
    if channels % num_heads:
        heads = [n for n in range(1, channels + 1) if channels % n == 0]
        nearest = min(heads, key=lambda n: abs(n - num_heads))
        raise ValueError(
            f"num_heads={num_heads} does not divide {name}={channels}; num_heads={nearest} would, "
            f"or {name}={max(1, round(channels / num_heads)) * num_heads}"
        )
    return channels


def split_heads(x: Tensor, sizes: tuple[int, ...], num_heads: int) -> tuple[Tensor, ...]:
    """Split ``(B, sum(sizes), H, W)`` into one ``(B, heads, H, W, size / heads)`` view for each size."""
    parts = zip(x.split(sizes, dim=1), sizes, strict=True)
    batch, _, height, width = x.shape  # rather than `unflatten`, behind which ONNX takes sizes to be the example's
    return tuple(
        part.view(batch, num_heads, size // num_heads, height, width).permute(0, 1, 3, 4, 2) for part, size in parts
    )


def merge_heads(x: Tensor) -> Tensor:
    """Bring ``(B, heads, H, W, d)`` to ``(B, heads·d, H, W)``; in channels_last, if memory is in the order of heads."""
    # Flattened where the batch comes before H: for a single image, flattening (heads, d) next to the batch leaves
    # it a stride that passes for channels_last but is not, and batch normalisation then sums the wrong gradient.
    return x.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
