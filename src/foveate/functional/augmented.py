"""Full self-attention with relative positions: the attention of attention-augmented convolution (AA).

    A = softmax_j((q_i · k_j + q_i · r^W_{x_j − x_i} + q_i · r^H_{y_j − y_i}) / √d)

Source: Bello et al., *Attention Augmented Convolutional Networks* (ICCV 2019, arXiv 1904.09925).
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate._shapes import Float
from foveate.functional._heads import check_alike
from foveate.functional._precision import autocast_off, upcast, upcast_dtype
from foveate.functional.relative import relative_scores, relative_vectors, relative_window

__all__ = ["augmented_attention", "augmented_attention_map"]


def augmented_attention_map(
    query: Float[Tensor, "batch heads height width dim"],
    key: Float[Tensor, "batch heads height width dim"],
    table_rows: Float[Tensor, "vertical dim"],
    table_columns: Float[Tensor, "horizontal dim"],
) -> Float[Tensor, "batch heads height*width height*width"]:
    """Form the map ``A`` above, rows summing to 1, in at least float32.

    ``table_rows`` is ``r^H``, the vertical offsets, and ``table_columns`` is ``r^W``, the horizontal ones. Offsets
    outside a table take its outermost vector (Shaw et al.'s clipping; not known of the paper).

    Examples:
        >>> query, key, table = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 8), torch.randn(9, 8)
        >>> FA.augmented_attention_map(query, key, table, table).shape
        torch.Size([2, 4, 15, 15])
    """
    check_alike(query, key)
    height, width, dim = query.shape[2:]
    with autocast_off(query):
        if isinstance(dim, Tensor):  # in a trace
            dim = dim.to(upcast_dtype(query.dtype))
        query, key = upcast(query) * dim**-0.5, upcast(key)
        for name, table in (("table_rows", table_rows), ("table_columns", table_columns)):
            if not torch.jit.is_tracing() and table.shape[-1] != query.shape[-1]:  # sizes of a trace are tensors
                raise ValueError(f"{name} must have {query.shape[-1]} columns, as queries; got {tuple(table.shape)}")
        rows = relative_vectors(relative_window(table_rows.to(query.dtype), height, outside="edge"), height)
        columns = relative_vectors(relative_window(table_columns.to(query.dtype), width, outside="edge"), width)
        content = torch.matmul(query.flatten(2, 3), key.flatten(2, 3).transpose(2, 3))  # B, heads, N, N
        vertical = relative_scores(query, rows, 0)  # B, heads, H, W, H
        horizontal = relative_scores(query, columns, 1)  # B, heads, H, W, W
        relative = vertical[..., :, None] + horizontal[..., None, :]  # B, heads, H, W, H, W
        return (content + relative.reshape(content.shape)).softmax(-1)


def augmented_attention(
    query: Float[Tensor, "batch heads height width dim"],
    key: Float[Tensor, "batch heads height width dim"],
    value: Float[Tensor, "batch heads height width dim_value"],
    table_rows: Float[Tensor, "vertical dim"],
    table_columns: Float[Tensor, "horizontal dim"],
) -> Float[Tensor, "batch heads height width dim_value"]:
    """Compute ``A V`` for the map of `augmented_attention_map`, whose ``N²`` weights it holds.

    The result has the dtype of ``value``; the softmax and the sums are in at least float32.

    Examples:
        >>> query, value, table = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 6), torch.randn(9, 8)
        >>> FA.augmented_attention(query, query, value, table, table).shape
        torch.Size([2, 4, 3, 5, 6])
    """
    check_alike(query, key, value)
    with autocast_off(value):
        weights = augmented_attention_map(query, key, table_rows, table_columns)
        out = torch.matmul(weights.to(upcast_dtype(value.dtype)), upcast(value).flatten(2, 3))
        return out.to(value.dtype).unflatten(2, value.shape[2:4])
