"""Axial content attention: content that is taken along the two axes, one after the other, which GSA does not do.

    columns  y_ab = q_ab (ρ(K)ᵀ V)_b,  ρ = softmax of each key channel over the positions of a column
    rows     z_ab = q_ab (ρ(K)ᵀ Y)_a,  over those of a row, with the same queries and keys

What comes from ``(p, q)`` to ``(a, b)`` passes through ``(a, q)``, and is weighed by the content there. GSA (Shen et
al. 2020, arXiv 2010.03019) attends to the content of all positions at once; this is what it can be compared with, in
PyTorch's operators. Tensors are ``(B, heads, H, W, d)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate._shapes import Float
from foveate.functional._heads import check_alike, check_position
from foveate.functional._precision import autocast_off, upcast

__all__ = ["axial_content_attention", "axial_content_column", "axial_content_map", "axial_content_rows"]


def axial_content_map(
    query: Float[Tensor, "batch heads height width dim"], key: Float[Tensor, "batch heads height width dim"]
) -> Float[Tensor, "batch heads height*width height*width"]:
    """Form the map of both passes together, in at least float32.

        C[(a,b), (p,q)] = (q_ab · ρ_row(K)_aq) (q_aq · ρ_column(K)_pq)

    Examples:
        >>> query, key = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 8)
        >>> FA.axial_content_map(query, key).shape
        torch.Size([2, 4, 15, 15])
    """
    return axial_content_rows(query, key).flatten(4, 5).flatten(2, 3)


def axial_content_rows(
    query: Float[Tensor, "batch heads height width dim"],
    key: Float[Tensor, "batch heads height width dim"],
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> Float[Tensor, "batch heads attending_rows attending_columns height width"]:
    """Form the rows of `axial_content_map` of the positions in ``rows`` and ``columns``.

    Examples:
        >>> query, key = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 8)
        >>> FA.axial_content_rows(query, key, rows=slice(0, 1)).shape
        torch.Size([2, 4, 1, 5, 3, 5])
    """
    check_alike(query, key)
    with autocast_off(query):
        lines = upcast(query)[:, :, rows]  # the way turns at (a, q): other lines have no part in it
        along = torch.einsum("bhaxd,bhaqd->bhaxq", lines[:, :, :, columns], upcast(key)[:, :, rows].softmax(3))
        down = torch.einsum("bhaqd,bhpqd->bhapq", lines, upcast(key).softmax(2))
        return along.unsqueeze(4) * down.unsqueeze(3)


def axial_content_column(
    query: Float[Tensor, "batch heads height width dim"],
    key: Float[Tensor, "batch heads height width dim"],
    row: int,
    column: int,
) -> Float[Tensor, "batch heads height width"]:
    """Form one column of `axial_content_map`: what every position takes from ``(row, column)``.

    Examples:
        >>> query, key = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 8)
        >>> whole = FA.axial_content_map(query, key).view(2, 4, 3, 5, 3, 5)
        >>> torch.allclose(FA.axial_content_column(query, key, 2, 1), whole[..., 2, 1], atol=1e-6)
        True
    """
    check_alike(query, key)
    check_position(query, row, column)
    with autocast_off(query):
        wide = upcast(query)
        along = torch.einsum("bhyxd,bhyd->bhyx", wide, upcast(key).softmax(3)[:, :, :, column])
        down = torch.einsum("bhyd,bhd->bhy", wide[:, :, :, column], upcast(key)[:, :, :, column].softmax(2)[:, :, row])
        return along * down.unsqueeze(-1)


def axial_content_attention(
    query: Float[Tensor, "batch heads height width dim"],
    key: Float[Tensor, "batch heads height width dim"],
    value: Float[Tensor, "batch heads height width dim_value"],
) -> Float[Tensor, "batch heads height width dim_value"]:
    """Compute both passes, ``4·N·d·d_v`` multiply-adds a head, without forming a map.

    The result has the dtype of ``value``; softmax and sums are in at least float32.

    Examples:
        >>> query, key, value = (torch.randn(2, 4, 3, 5, dim) for dim in (8, 8, 6))
        >>> by_map = FA.axial_content_map(query, key) @ value.flatten(2, 3)
        >>> torch.allclose(FA.axial_content_attention(query, key, value).flatten(2, 3), by_map, atol=1e-5)
        True
    """
    check_alike(query, key, value)
    with autocast_off(value):
        q, k, v = upcast(query), upcast(key), upcast(value)
        for axis, line in ((2, "x"), (3, "y")):  # columns, then rows
            context = torch.einsum(f"bhyxd,bhyxc->bh{line}dc", k.softmax(axis), v)
            v = torch.einsum(f"bhyxd,bh{line}dc->bhyxc", q, context)
        return v.to(value.dtype)
