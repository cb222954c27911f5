"""Queries, keys and values of several heads."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate._checks import integer

__all__ = ["check_alike", "check_matching", "check_position"]


def check_matching(query: Tensor, key: Tensor) -> None:
    """Raise a `ValueError` unless both are ``(B, heads, H, W, d)``, alike but for the positions."""
    if torch.jit.is_tracing():
        return
    if query.ndim != 5 or key.ndim != 5 or query.shape[:2] != key.shape[:2] or query.shape[4] != key.shape[4]:
        raise ValueError(
            f"queries and keys must be (B, heads, H, W, d), alike but for H and W; got shapes {tuple(query.shape)} and "
            f"{tuple(key.shape)}"
        )


def check_alike(query: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> None:
    """Raise a `ValueError` unless all are ``(B, heads, H, W, d)``, alike; values may have another ``d``."""
    if torch.jit.is_tracing():  # sizes are tensors
        return
    if query.ndim != 5 or (key is not None and key.shape != query.shape):
        got = tuple(query.shape) if key is None else f"{tuple(query.shape)} and {tuple(key.shape)}"
        raise ValueError(f"queries and keys must be (B, heads, H, W, d), alike; got shapes {got}")
    if value is not None and (value.ndim != 5 or value.shape[:4] != query.shape[:4]):
        raise ValueError(
            f"queries and values must be (B, heads, H, W, channels), alike but for the channels; got shapes "
            f"{tuple(query.shape)} and {tuple(value.shape)}"
        )


def check_position(x: Tensor, row: int, column: int) -> None:
    """Raise a `ValueError` unless ``x``, ``(B, heads, H, W, d)``, has such a position, counted from 0."""
    for name, value, size in (("row", row, x.shape[2]), ("column", column, x.shape[3])):
        if integer(name, value, minimum=0) >= size:
            raise ValueError(f"{name} must be below {size}, the number of {name}s; got {value}")
