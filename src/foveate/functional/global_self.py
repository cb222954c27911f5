"""Global self-attention (GSA): content attention, linear in the positions, and axial positional attention.

    content     F_c = Q (ρ(Kᵀ) V),  ρ = softmax of each key channel over all N positions; Q is not normalized
    positional  y_ab = Σ_δ (q_ab · r_δ) v_{a+δ,b}, one pass down the columns, then one along the rows

A relative position (i, j) → (p, q) is well described by (i, j) → (p, j) → (p, q), so the positional attention can
take the two axes one after the other; content routed through (p, j) would be gated by what happens to be there.

Source: Shen et al., *Global Self-Attention Networks for Image Recognition* (2020, arXiv 2010.03019), section 3.
All tensors here are ``(B, heads, H, W, d)``; they are fastest where memory is ordered ``(B, H, W, heads, d)``,
which is what a 1×1 convolution in channels_last leaves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate._checks import one_of
from foveate.functional._axial import axial_pass
from foveate.functional._content import content
from foveate.functional._precision import autocast_off, upcast, upcast_dtype
from foveate.functional.relative import relative_scores, relative_vectors, relative_window

__all__ = [
    "axial_positional_attention",
    "axial_positional_map",
    "content_attention",
    "content_attention_column",
    "content_attention_map",
    "global_positional_column",
    "global_positional_map",
    "global_positional_rows",
]


def content_attention_map(query: Tensor, key: Tensor) -> Tensor:
    """Form the content map ``Q ρ(Kᵀ)``, ``(B, heads, N, N)``, of at least float32.

    Row ``i`` holds what position ``i`` takes from each position. The weights are signed and do not sum to 1:
    the softmax runs over the positions of each key channel, and the queries mix the channels. For some rows alone,
    pass the queries of those positions, such as ``query[:, :, a : a + 1, b : b + 1]``.
    """
    with autocast_off(query):
        weights = upcast(key).flatten(2, 3).softmax(2)
        return torch.matmul(upcast(query).flatten(2, 3), weights.transpose(2, 3))


def content_attention_column(query: Tensor, key: Tensor, row: int, column: int) -> Tensor:
    """Form one column of the content map: what every position takes from ``(row, column)``, ``(B, heads, H, W)``.

    ``q_i · ρ(K)_j`` for one ``j`` and all ``i``; the softmax still runs over all positions.
    """
    with autocast_off(query):
        weights = upcast(key).flatten(2, 3).softmax(2).view(key.shape)[:, :, row, column]  # B, heads, d
        return torch.einsum("bhyxd,bhd->bhyx", upcast(query), weights)


def content_attention(query: Tensor, key: Tensor, value: Tensor, *, fused: bool | None = None) -> Tensor:
    """Compute ``Q (ρ(Kᵀ) V)``: ``2·N·d·d_v`` multiply-adds a head, and no N×N map.

    The softmax is normalized after its product with ``V``, where only ``d`` sums are left to divide by, and its
    weights are not kept: the backward pass computes them again from the keys, their largest and the sums.

    Args:
        query: ``(B, heads, H, W, d)``.
        key: ``(B, heads, H, W, d)``.
        value: ``(B, heads, H, W, d_v)``.
        fused: None computes it in C++ on a CPU where that was compiled; False in PyTorch's operators, which are the
            reference; True insists on the former. ``FOVEATE_FUSED=0`` in the environment makes None False.

    Returns:
        ``(B, heads, H, W, d_v)`` in the dtype of ``value``; softmax and sums are in at least float32.

    Raises:
        ValueError: The shapes do not fit, or ``fused`` is true and there are no kernels for the device and dtype.
    """
    _alike(query, value)
    if not torch.jit.is_tracing() and key.shape != query.shape:
        raise ValueError(f"keys must have the shape of the queries; got {tuple(key.shape)} and {tuple(query.shape)}")
    with autocast_off(value):
        return content(query.to(value.dtype), key.to(value.dtype), value, fused)


def axial_positional_map(query: Tensor, table: Tensor, axis: int) -> Tensor:
    """Form the map of one axial pass: how position ``(a, b)`` weighs each position of its own line.

    Args:
        query: ``(B, heads, H, W, d)``.
        table: Relative embeddings ``(2L − 1, d)``. Offsets outside it do not attend: their weight is 0.
        axis: 0 for the column pass (offsets along H), 1 for the row pass (along W).

    Returns:
        ``(B, heads, H, W, n)``, ``n`` the length of the line: entry ``[…, a, b, k]`` is ``q_ab · r_{k − a}``
        (column pass) or ``q_ab · r_{k − b}`` (row pass). Signed; there is no softmax.

    Raises:
        ValueError: A shape does not fit, or ``axis`` is neither 0 nor 1.
    """
    _check(query, table, axis)
    with autocast_off(query):
        return relative_scores(upcast(query), _vectors(query, table, axis), axis)


def axial_positional_attention(
    query: Tensor, value: Tensor, table: Tensor, axis: int, *, fused: bool | None = None
) -> Tensor:
    """Compute one axial pass, ``y_ab = Σ_δ (q_ab · r_δ) v_{a+δ,b}`` for the column pass (``axis=0``).

    Only a cache-sized part of the scores exists at any time: they are many times the size of the activations
    (``heads·N·n`` numbers), and are computed again in the backward pass rather than held.

    Args:
        query: ``(B, heads, H, W, d)``.
        value: ``(B, heads, H, W, d_v)``.
        table: Relative embeddings ``(2L − 1, d)``; offsets outside it do not attend.
        axis: 0 for the column pass, 1 for the row pass.
        fused: As in `content_attention`; on CUDA the kernels are Triton's.

    Returns:
        ``(B, heads, H, W, d_v)`` in the dtype of ``value``; scores and sums are in at least float32.

    Raises:
        ValueError: A shape does not fit, ``axis`` is neither 0 nor 1, or ``fused`` is true and there are no kernels for
            the device and dtype.
    """
    _check(query, table, axis)
    _alike(query, value)
    with autocast_off(value):
        window = relative_window(table.to(upcast_dtype(value.dtype)), value.shape[2 + axis])
        return axial_pass(query.to(value.dtype), value, window, axis, fused)


def global_positional_map(query: Tensor, table_rows: Tensor, table_columns: Tensor) -> Tensor:
    """Form the map of both passes together, ``(B, heads, N, N)``, without the normalization between them.

        P[(a,b), (p,q)] = (q_ab · r^r_{q−b}) (q_aq · r^c_{p−a})

    The way from ``(a, b)`` to ``(p, q)`` turns at ``(a, q)``: first along the row, then down the column.

    Args:
        query: ``(B, heads, H, W, d)``.
        table_rows: ``r^r``, the offsets along a row (along W), ``(2L − 1, d)``.
        table_columns: ``r^c``, the offsets along a column (along H), ``(2L − 1, d)``.
    """
    down = axial_positional_map(query, table_columns, 0)  # B, heads, a, q, p
    along = axial_positional_map(query, table_rows, 1)  # B, heads, a, b, q
    both = torch.einsum("bhijl,bhilk->bhijkl", along, down)  # i = a, j = b, k = p, l = q
    return both.flatten(4, 5).flatten(2, 3)


def global_positional_rows(
    query: Tensor,
    table_rows: Tensor,
    table_columns: Tensor,
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> Tensor:
    """Form rows of `global_positional_map`: what the positions in ``rows`` and ``columns`` take from each position.

    Of one position these are ``N`` numbers a head, from its own query and those of its line.

    Args:
        query: ``(B, heads, H, W, d)``.
        table_rows: As in `global_positional_map`.
        table_columns: As in `global_positional_map`.
        rows: Which rows ``a`` of the map the positions that attend stand in.
        columns: Which columns ``b``.

    Returns:
        ``(B, heads, rows, columns, H, W)``: entry ``[…, a, b, p, q]`` is ``P[(a,b), (p,q)]``.
    """
    _check(query, table_rows, 1)
    _check(query, table_columns, 0)
    with autocast_off(query):
        lines = upcast(query)[:, :, rows]  # the way turns at (a, q): other lines have no part in it
        along = torch.einsum("bhaxd,xqd->bhaxq", lines[:, :, :, columns], _vectors(query, table_rows, 1)[columns])
        down = torch.einsum("bhaqd,apd->bhapq", lines, _vectors(query, table_columns, 0)[rows])
        return along.unsqueeze(4) * down.unsqueeze(3)


def global_positional_column(query: Tensor, table_rows: Tensor, table_columns: Tensor, row: int, column: int) -> Tensor:
    """Form one column of `global_positional_map`: what every position takes from one, ``(B, heads, H, W)``.

    ``(q_ab · r^r_{q−b}) (q_aq · r^c_{p−a})`` for one ``(p, q)`` and all ``(a, b)``.
    """
    _check(query, table_rows, 1)
    _check(query, table_columns, 0)
    with autocast_off(query):
        wide = upcast(query)
        along = torch.einsum("bhyxd,xd->bhyx", wide, _vectors(query, table_rows, 1)[:, column])
        down = torch.einsum("bhyd,yd->bhy", wide[:, :, :, column], _vectors(query, table_columns, 0)[:, row])
        return along * down.unsqueeze(-1)


def _vectors(query: Tensor, table: Tensor, axis: int) -> Tensor:
    """Return the embeddings ``(n, n, d)`` of the offsets along an axis of ``query``, in at least float32."""
    size = query.shape[2 + axis]
    return relative_vectors(relative_window(table.to(upcast_dtype(query.dtype)), size), size)


def _alike(query: Tensor, value: Tensor) -> None:
    if torch.jit.is_tracing():  # sizes are tensors, which are not to be looked at
        return
    if query.ndim != 5 or value.ndim != 5 or query.shape[:4] != value.shape[:4]:
        raise ValueError(
            f"queries and values must be (B, heads, H, W, channels), alike but for the channels; got shapes "
            f"{tuple(query.shape)} and {tuple(value.shape)}"
        )


def _check(query: Tensor, table: Tensor, axis: int) -> None:
    one_of("axis", axis, (0, 1))
    if torch.jit.is_tracing():
        return
    if query.ndim != 5 or query.shape[-1] != table.shape[-1]:
        raise ValueError(
            f"query must be (B, heads, H, W, d) and the table (2L − 1, d) with the same d; got shapes "
            f"{tuple(query.shape)} and {tuple(table.shape)}"
        )
