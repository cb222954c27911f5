"""Tables of relative embeddings: one vector for each offset along an axis.

A table ``R`` holds the offsets ``−(L − 1) … L − 1`` in ``2L − 1`` rows; ``L`` is its *extent*, the length of the line
at which every offset has a vector of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveate._checks import integer, one_of
from foveate._shapes import Float
from foveate.functional._plain import any_size

__all__ = ["relative_scores", "relative_vectors", "relative_window", "resize_relative_table"]


def relative_window(
    table: Float[Tensor, "offsets dim"], size: int, *, outside: str = "zero"
) -> Float[Tensor, "{2*size-1} dim"]:
    """Return the vectors of the offsets that occur on a line of ``size`` pixels.

    An offset outside the table gets zeros (it scores nothing), or with ``outside="edge"`` the outermost vector, as in
    Shaw et al. 2018.

    Examples:
        >>> table = torch.tensor([[1.0], [2.0], [3.0]])
        >>> FA.relative_window(table, 3).T, FA.relative_window(table, 3, outside="edge").T
        (tensor([[0., 1., 2., 3., 0.]]), tensor([[1., 1., 2., 3., 3.]]))
    """
    one_of("outside", outside, ("zero", "edge"))
    _check(table)
    extent = (table.shape[0] + 1) // 2
    if any_size():  # without the branches below
        offsets = torch.arange(1 - size, size, device=table.device)
        window = table[offsets.clamp(1 - extent, extent - 1) + extent - 1]
        return window if outside == "edge" else window.masked_fill((offsets.abs() >= extent)[:, None], 0)
    missing = integer("size", size) - extent
    if missing <= 0:
        return table[-missing : table.shape[0] + missing]
    if outside == "zero":
        return F.pad(table, (0, 0, missing, missing))
    return torch.cat([table[:1].expand(missing, -1), table, table[-1:].expand(missing, -1)])


def relative_vectors(window: Float[Tensor, "offsets dim"], size: int | None = None) -> Float[Tensor, "n n dim"]:
    """Lay a window out as a matrix of vectors: entry ``(i, j)`` is the vector of the offset ``j − i``.

    The caller gives ``size``, ``n``, where it has it: ONNX export by tracing follows the size of an input, and takes
    that of the window from the example.

    Examples:
        >>> FA.relative_vectors(torch.tensor([[-1.0], [0.0], [1.0]])).squeeze(-1)
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """
    size = (window.shape[0] + 1) // 2 if size is None else size
    if not any_size() and window.shape[0] != 2 * size - 1:
        raise ValueError(f"a window of a line of {size} pixels has {2 * size - 1} offsets; got {window.shape[0]}")
    positions = torch.arange(size, device=window.device)
    return window[positions - positions[:, None] + size - 1]


def relative_scores(query: Tensor, vectors: Tensor, axis: int) -> Tensor:
    """Return the products of queries ``(B, heads, H, W, d)`` with the vectors of their lines, ``(B, heads, H, W, n)``.

    Entry ``[…, a, b, k]`` is ``q_ab · vectors[a, k]`` for ``axis=0``, ``q_ab · vectors[b, k]`` for ``axis=1``;
    ``vectors`` are those of `relative_vectors`.
    """
    lines = query.permute(2 + axis, 3 - axis, 0, 1, 4)  # n, m, B, heads, d
    scores = torch.matmul(lines.flatten(1, 3), vectors.transpose(1, 2))  # n, m·B·heads, n
    scores = scores.unflatten(1, lines.shape[1:4])
    return scores.permute(2, 3, 0, 1, 4) if axis == 0 else scores.permute(2, 3, 1, 0, 4)


def resize_relative_table(table: Float[Tensor, "offsets dim"], extent: int) -> Float[Tensor, "{2*extent-1} dim"]:
    """Stretch a table to another extent by linear interpolation of the offsets.

    Offset 0 and the outermost offsets keep their vectors: the same relative layout at another resolution.

    Examples:
        >>> FA.resize_relative_table(torch.tensor([[-1.0], [0.0], [1.0]]), 3).T
        tensor([[-1.0000, -0.5000,  0.0000,  0.5000,  1.0000]])
    """
    integer("extent", extent)
    _check(table)
    if table.shape[0] == 1 or extent == 1:  # one end holds offset 0 alone
        middle = table[table.shape[0] // 2]
        return middle.expand(2 * extent - 1, -1).clone()
    wide = table.to(torch.promote_types(table.dtype, torch.float32))
    resized = F.interpolate(wide.T[None], size=2 * extent - 1, mode="linear", align_corners=True)
    return resized[0].T.to(table.dtype).contiguous()


def _check(table: Tensor) -> None:
    if torch.jit.is_tracing():  # sizes are tensors
        return
    if table.ndim != 2 or table.shape[0] % 2 == 0:
        raise ValueError(
            f"a relative table is (2L − 1, d): an odd number of offsets around 0; got shape {tuple(table.shape)}"
        )
