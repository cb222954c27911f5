"""Global self-attention (GSA): content attention, linear in the positions, and axial positional attention.

    content     F_c = Q (ρ(Kᵀ) V),  ρ = softmax of each key channel over all N positions; Q is not normalized
    positional  y_ab = Σ_δ (q_ab · r_δ) v_{a+δ,b}, one pass down the columns, then one along the rows

A relative position (i, j) → (p, q) is well described by (i, j) → (p, j) → (p, q), so the positional attention can
take the two axes one after the other; content routed through (p, j) would be gated by what happens to be there.

Source: Shen et al., *Global Self-Attention Networks for Image Recognition* (2020, arXiv 2010.03019).
All tensors here are ``(B, heads, H, W, d)``; they are fastest where memory is ordered ``(B, H, W, heads, d)``,
which is what a 1×1 convolution in channels_last leaves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate._checks import one_of
from foveate._shapes import Float
from foveate.functional._axial import axial_pass
from foveate.functional._content import content
from foveate.functional._heads import check_alike, check_matching, check_position
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


def content_attention_map(
    query: Float[Tensor, "batch heads rows columns dim"],
    key: Float[Tensor, "batch heads height width dim"],
    *,
    normalize_queries: bool = False,
) -> Float[Tensor, "batch heads rows*columns height*width"]:
    """Form the content map ``Q ρ(Kᵀ)``, in at least float32.

    Row ``i`` holds what position ``i`` takes from each position. The weights are signed and do not sum to 1:
    the softmax runs over the positions of each key channel, and the queries mix the channels. For some rows alone,
    pass the queries of those positions, such as ``query[:, :, a : a + 1, b : b + 1]``.

    With ``normalize_queries`` the channels of each query pass through a softmax, and rows are positive and sum to 1: as
    in efficient attention (Shen et al. 2021, arXiv 1812.01243), not in GSA.

    Examples:
        >>> query, key = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 8)
        >>> FA.content_attention_map(query, key).shape
        torch.Size([2, 4, 15, 15])
    """
    check_matching(query, key)
    with autocast_off(query):
        weights = upcast(key).flatten(2, 3).softmax(2)
        return torch.matmul(_queries(query, normalize_queries).flatten(2, 3), weights.transpose(2, 3))


def content_attention_column(
    query: Float[Tensor, "batch heads height width dim"],
    key: Float[Tensor, "batch heads height width dim"],
    row: int,
    column: int,
    *,
    normalize_queries: bool = False,
) -> Float[Tensor, "batch heads height width"]:
    """Form one column of the content map: what every position takes from ``(row, column)``.

    That is ``q_i · ρ(K)_j`` for one ``j`` and all ``i``; the softmax still runs over all positions.
    ``normalize_queries`` is as in `content_attention_map`.

    Examples:
        >>> query, key = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 8)
        >>> whole = FA.content_attention_map(query, key).view(2, 4, 3, 5, 3, 5)
        >>> torch.allclose(FA.content_attention_column(query, key, 2, 1), whole[..., 2, 1], atol=1e-6)
        True
    """
    check_matching(query, key)
    check_position(key, row, column)
    with autocast_off(query):
        weights = upcast(key).flatten(2, 3).softmax(2).view(key.shape)[:, :, row, column]  # B, heads, d
        return torch.einsum("bhyxd,bhd->bhyx", _queries(query, normalize_queries), weights)


def content_attention(
    query: Float[Tensor, "batch heads height width dim"],
    key: Float[Tensor, "batch heads height width dim"],
    value: Float[Tensor, "batch heads height width dim_value"],
    *,
    normalize_queries: bool = False,
    fused: bool | None = None,
) -> Float[Tensor, "batch heads height width dim_value"]:
    """Compute ``Q (ρ(Kᵀ) V)``: ``2·N·d·d_v`` multiply-adds a head, and no N×N map.

    The softmax is normalized after its product with ``V``, where only ``d`` sums are left to divide by, and its
    weights are not kept: the backward pass computes them again from the keys, their maxima and the sums. The result has
    the dtype of ``value``; softmax and sums are in at least float32. ``normalize_queries`` is as in
    `content_attention_map`.

    With ``fused=None`` fused kernels compute it where there are any (unless ``FOVEATE_FUSED=0`` is in the environment),
    with False PyTorch's operators, the reference; True raises a `ValueError` where there are no kernels, but for CUDA,
    where PyTorch's products of matrices are the fused way.

    Examples:
        >>> query, key, value = (torch.randn(2, 4, 3, 5, dim) for dim in (8, 8, 6))
        >>> by_map = FA.content_attention_map(query, key) @ value.flatten(2, 3)
        >>> torch.allclose(FA.content_attention(query, key, value).flatten(2, 3), by_map, atol=1e-5)
        True
    """
    check_alike(query, key, value)
    with autocast_off(value):
        if normalize_queries:
            query = _queries(query, True)
        return content(query.to(value.dtype), key.to(value.dtype), value, fused)


def axial_positional_map(
    query: Float[Tensor, "batch heads height width dim"], table: Float[Tensor, "offsets dim"], axis: int
) -> Float[Tensor, "batch heads height width line"]:
    """Form the map of one axial pass: how position ``(a, b)`` weighs each position of its own line.

    Entry ``[…, a, b, k]`` is ``q_ab · r_{k − a}`` for ``axis=0`` (column pass, offsets along H), ``q_ab · r_{k − b}``
    for ``axis=1`` (row pass, along W): signed, in at least float32, without a softmax. The table holds the relative
    embeddings of the offsets ``−(L − 1) … L − 1``; others do not attend: their weight is 0.

    Examples:
        >>> FA.axial_positional_map(torch.randn(2, 4, 3, 5, 8), torch.randn(9, 8), axis=1).shape
        torch.Size([2, 4, 3, 5, 5])
    """
    _check(query, table, axis)
    with autocast_off(query):
        return relative_scores(upcast(query), _vectors(query, table, axis), axis)


def axial_positional_attention(
    query: Float[Tensor, "batch heads height width dim"],
    value: Float[Tensor, "batch heads height width dim_value"],
    table: Float[Tensor, "offsets dim"],
    axis: int,
    *,
    fused: bool | None = None,
) -> Float[Tensor, "batch heads height width dim_value"]:
    """Compute one axial pass, ``y_ab = Σ_δ (q_ab · r_δ) v_{a+δ,b}`` for the column pass (``axis=0``).

    The scores, ``heads·N·n`` numbers, are many times the size of the activations: only a cache-sized part of them
    exists at any time, and the backward pass computes them again. Sums are in at least float32, and so are scores,
    which Triton's kernels on CUDA round to the dtype of ``value`` before they weigh it: above 65504 they are infinite
    in float16. The result has the dtype of ``value``. ``table`` and ``axis`` are as in `axial_positional_map`, and
    ``fused`` as in `content_attention`.

    Examples:
        >>> query, value, table = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 6), torch.randn(9, 8)
        >>> FA.axial_positional_attention(query, value, table, axis=1).shape
        torch.Size([2, 4, 3, 5, 6])
    """
    _check(query, table, axis)
    check_alike(query, value=value)
    with autocast_off(value):
        window = relative_window(table.to(upcast_dtype(value.dtype)), value.shape[2 + axis])
        return axial_pass(query.to(value.dtype), value, window, axis, fused)


def global_positional_map(
    query: Float[Tensor, "batch heads height width dim"],
    table_rows: Float[Tensor, "horizontal dim"],
    table_columns: Float[Tensor, "vertical dim"],
) -> Float[Tensor, "batch heads height*width height*width"]:
    """Form the map of both passes together, without the normalization between them.

        P[(a,b), (p,q)] = (q_ab · r^r_{q−b}) (q_aq · r^c_{p−a})

    The way from ``(a, b)`` to ``(p, q)`` turns at ``(a, q)``: first along the row, then down the column. ``table_rows``
    is ``r^r``, the offsets along a row (along W), ``table_columns`` is ``r^c``, those along a column (along H).

    Examples:
        >>> query, along, down = torch.randn(2, 4, 3, 5, 8), torch.randn(9, 8), torch.randn(5, 8)
        >>> FA.global_positional_map(query, along, down).shape
        torch.Size([2, 4, 15, 15])
    """
    down = axial_positional_map(query, table_columns, 0)  # B, heads, a, q, p
    along = axial_positional_map(query, table_rows, 1)  # B, heads, a, b, q
    both = torch.einsum("bhijl,bhilk->bhijkl", along, down)  # i = a, j = b, k = p, l = q
    return both.flatten(4, 5).flatten(2, 3)


def global_positional_rows(
    query: Float[Tensor, "batch heads height width dim"],
    table_rows: Float[Tensor, "horizontal dim"],
    table_columns: Float[Tensor, "vertical dim"],
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> Float[Tensor, "batch heads attending_rows attending_columns height width"]:
    """Form the rows of `global_positional_map` of the positions in ``rows`` and ``columns``.

    Entry ``[…, a, b, p, q]`` is ``P[(a,b), (p,q)]``. Of one position these are ``N`` numbers a head, from its own query
    and those of its line.

    Examples:
        >>> query, along, down = torch.randn(2, 4, 3, 5, 8), torch.randn(9, 8), torch.randn(5, 8)
        >>> FA.global_positional_rows(query, along, down, rows=slice(0, 1)).shape
        torch.Size([2, 4, 1, 5, 3, 5])
    """
    _check(query, table_rows, 1)
    _check(query, table_columns, 0)
    with autocast_off(query):
        lines = upcast(query)[:, :, rows]  # the way turns at (a, q): other lines have no part in it
        along = torch.einsum("bhaxd,xqd->bhaxq", lines[:, :, :, columns], _vectors(query, table_rows, 1)[columns])
        down = torch.einsum("bhaqd,apd->bhapq", lines, _vectors(query, table_columns, 0)[rows])
        return along.unsqueeze(4) * down.unsqueeze(3)


def global_positional_column(
    query: Float[Tensor, "batch heads height width dim"],
    table_rows: Float[Tensor, "horizontal dim"],
    table_columns: Float[Tensor, "vertical dim"],
    row: int,
    column: int,
) -> Float[Tensor, "batch heads height width"]:
    """Form one column of `global_positional_map`: what every position takes from ``(row, column)``.

    That is ``(q_ab · r^r_{q−b}) (q_aq · r^c_{p−a})`` for one ``(p, q)`` and all ``(a, b)``.

    Examples:
        >>> query, along, down = torch.randn(2, 4, 3, 5, 8), torch.randn(9, 8), torch.randn(5, 8)
        >>> FA.global_positional_column(query, along, down, row=2, column=1).shape
        torch.Size([2, 4, 3, 5])
    """
    _check(query, table_rows, 1)
    _check(query, table_columns, 0)
    check_position(query, row, column)
    with autocast_off(query):
        wide = upcast(query)
        along = torch.einsum("bhyxd,xd->bhyx", wide, _vectors(query, table_rows, 1)[:, column])
        down = torch.einsum("bhyd,yd->bhy", wide[:, :, :, column], _vectors(query, table_columns, 0)[:, row])
        return along * down.unsqueeze(-1)


def _queries(query: Tensor, normalize: bool) -> Tensor:
    return upcast(query).softmax(-1) if normalize else upcast(query)


def _vectors(query: Tensor, table: Tensor, axis: int) -> Tensor:
    """Return the embeddings ``(n, n, d)`` of the offsets along an axis of ``query``, in at least float32."""
    size = query.shape[2 + axis]
    return relative_vectors(relative_window(table.to(upcast_dtype(query.dtype)), size), size)


def _check(query: Tensor, table: Tensor, axis: int) -> None:
    one_of("axis", axis, (0, 1))
    if torch.jit.is_tracing():
        return
    if query.ndim != 5 or query.shape[-1] != table.shape[-1]:
        raise ValueError(
            f"query must be (B, heads, H, W, d) and the table (2L − 1, d) with the same d; got shapes "
            f"{tuple(query.shape)} and {tuple(table.shape)}"
        )
