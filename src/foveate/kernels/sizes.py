"""Checks of the tensors that a kernel is given: it reads and writes by pointers, and trusts no size.

Every kernel, every operator without a kernel, and every fake operator calls one of these first. They look at the number
of dimensions, the sizes, the dtypes, the device and the layout of every tensor; strides may be any, as results are
allocated by those who compute them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_axial", "check_content"]

WIDE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
"""The dtypes of activations, and in which their sums are."""


def check_axial(query: Tensor, value: Tensor, window: Tensor, axis: int, grad: Tensor | None = None) -> None:
    """Check the arguments of an axial pass, or of its backward pass with ``grad``.

    Args:
        query: ``(B, heads, H, W, d)``.
        value: ``(B, heads, H, W, c)``, of the dtype of ``query``.
        window: ``(2n − 1, d)``, of that dtype or that of its sums.
        axis: 0 or 1.
        grad: Of the result, hence like ``value``.

    Raises:
        ValueError: One of them is not as described.
    """
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 (lines along H) or 1 (along W); got {axis}")
    _check_maps(query=query, value=value)
    if window.ndim != 2 or window.shape[0] != 2 * query.shape[2 + axis] - 1 or window.shape[1] != query.shape[4]:
        raise ValueError(
            f"window must be (2n − 1, d), ({2 * query.shape[2 + axis] - 1}, {query.shape[4]}) for queries "
            f"{tuple(query.shape)} along axis {axis}; got {tuple(window.shape)}"
        )
    if window.dtype not in (value.dtype, WIDE[value.dtype]):
        raise ValueError(f"window must be {value.dtype} like the values, or {WIDE[value.dtype]}; got {window.dtype}")
    _check_place(value, window=window)
    if grad is not None:
        _check_like("grad", grad, value.shape, value.dtype, value)


def check_content(query: Tensor, key: Tensor, value: Tensor, *saved: Tensor, grad: Tensor | None = None) -> None:
    """Check the arguments of content attention, or of its backward pass with ``grad``.

    Args:
        query: ``(B, heads, H, W, d)``.
        key: Like ``query``.
        value: ``(B, heads, H, W, c)``, of the dtype of ``query``.
        *saved: ``context``, ``(B, heads, d, c)``, and ``peak`` and ``total``, ``(B, heads, d)``, in the dtype of sums.
        grad: Of the result, hence like ``value``.

    Raises:
        ValueError: One of them is not as described.
    """
    _check_maps(query=query, value=value)
    _check_like("key", key, query.shape, value.dtype, value)
    if grad is None:
        return
    _check_like("grad", grad, value.shape, value.dtype, value)
    sums = (*query.shape[:2], query.shape[4])
    for name, tensor, shape in zip(
        ("context", "peak", "total"), saved, ((*sums, value.shape[4]), sums, sums), strict=True
    ):
        _check_like(name, tensor, shape, WIDE[value.dtype], value)


def _check_maps(query: Tensor, value: Tensor) -> None:
    if query.ndim != 5 or value.ndim != 5 or query.shape[:4] != value.shape[:4]:
        raise ValueError(
            f"query and value must be (B, heads, H, W, channels), alike but for the last; got {tuple(query.shape)} and "
            f"{tuple(value.shape)}"
        )
    if query.shape[2] == 0 or query.shape[3] == 0:
        raise ValueError(f"a map has at least 1×1 pixels; got queries {tuple(query.shape)}")
    if value.dtype not in WIDE or query.dtype != value.dtype:
        allowed = ", ".join(map(str, WIDE))
        raise ValueError(f"queries and values must share one of {allowed}; got {query.dtype} and {value.dtype}")
    _check_place(value, query=query, value=value)


def _check_like(name: str, tensor: Tensor, shape: Any, dtype: torch.dtype, value: Tensor) -> None:
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"{name} must be {tuple(shape)}, {dtype}; got {tuple(tensor.shape)}, {tensor.dtype}")
    _check_place(value, **{name: tensor})


def _check_place(like: Tensor, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.device != like.device or tensor.layout != torch.strided:
            raise ValueError(
                f"{name} must be strided on {like.device}, where the values are; got {tensor.layout} on {tensor.device}"
            )
