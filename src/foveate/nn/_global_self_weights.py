"""The weights of global self-attention: content and position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveate import functional as FA
from foveate.functional._precision import upcast_dtype
from foveate.nn.spatial_attention import detached
from foveate.nn.weights import PARTS, PairwiseWeights

__all__ = ["AxialWeights", "GlobalSelfWeights", "axial_map", "gain_and_shift", "normalized"]

LINEAR = 1e-3
"""Largest relative error at which a normalization counts as a gain and a shift per channel, in single precision."""
ROUNDINGS = 4
"""The same in half precision, whose results are rounded, in distances from 1 to the next number."""


class GlobalSelfWeights(PairwiseWeights):
    """Weights of global self-attention, ``C_ij + g P_ij``: content and position.

    Between the two axial passes stands a normalization, ``v ↦ g_c v + b_c`` for each channel. The weight with
    which channel ``c`` of a head takes ``j`` is ``C_ij + g_c P_ij``; those of a head are the mean over its channels,

        A_ij = C_ij + ḡ P_ij.

    `attended` uses each channel's own ``g_c``, and ``b_c``. A module of one part has that one alone.

    Args:
        query: ``(B, heads, H, W, d)``, as are the next two.
        key: Keys; without channels where the module has no content part.
        value: Values.
        part: ``content``, ``positional`` or ``both``: the parts of the module.
        tables: ``rel_height`` and ``rel_width`` of the positional part.
        normalization: ``g`` and ``b``, each ``(B, C)``, see `gain_and_shift`.
        normalize_queries: As in `foveate.functional.content_attention_map`.
        axial_content: The content is that of `foveate.functional.axial_content_map`.
    """

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        part: str,
        tables: tuple[Tensor, Tensor] | None = None,
        normalization: tuple[Tensor, Tensor] | None = None,
        *,
        normalize_queries: bool = False,
        axial_content: bool = False,
    ) -> None:
        super().__init__(detached(value))
        self.query, self.key = detached(query), detached(key)
        self.normalize_queries, self.axial_content = normalize_queries, axial_content
        self.has = {each for each in PARTS if part in ("both", each)}
        self.parts = PARTS if part == "both" else PARTS[:1]
        if tables is not None and normalization is not None:
            self.table_columns, self.table_rows = map(detached, tables)
            self.gain, self.shift = (  # B, heads, d_v
                detached(x).to(self.values.dtype).unflatten(1, (self.heads, -1)) for x in normalization
            )

    def rows(self, images: slice, rows: slice, columns: slice, part: str = "both") -> Tensor:
        content = positional = None
        if "content" in self.has and part != "positional":
            content = self._content(images, rows, columns)
        if "positional" in self.has and part != "content":
            gain = self.gain[images].mean(2)[..., None, None, None, None]
            positional = self._positional(images, rows, columns) * gain
        return _sum(content, positional)

    def given_by(self, position: tuple[int, int], part: str = "both") -> Tensor:
        row, column = self._check(position, part)
        content = positional = None
        if "content" in self.has and part != "positional":
            content = self._content_column(row, column)
        if "positional" in self.has and part != "content":
            positional = FA.global_positional_column(self.query, self.table_rows, self.table_columns, row, column)
            positional = positional * self.gain.mean(2)[..., None, None]
        return _sum(content, positional)

    def attended(self, position: tuple[int, int]) -> Tensor:
        row, column = self._check(position, "both")
        here = (slice(None), slice(row, row + 1), slice(column, column + 1))
        content = positional = None
        if "content" in self.has:
            content = self._applied(self.rows(*here, "content"))
        if "positional" in self.has:
            along = FA.axial_positional_map(self.query[:, :, row : row + 1], self.table_rows, 1)[:, :, 0, column]
            shift = along.sum(-1)[..., None] * self.shift  # the second pass weighs b_c as well
            positional = self.gain * self._applied(self._positional(*here)) + shift
        return _sum(content, positional).flatten(1)

    def _applied(self, weights: Tensor) -> Tensor:
        return torch.einsum("bhyx,bhyxd->bhd", weights[:, :, 0, 0], self.values)

    def _content(self, images: slice, rows: slice, columns: slice) -> Tensor:
        if self.axial_content:
            return FA.axial_content_rows(self.query[images], self.key[images], rows, columns)
        query = self.query[images, :, rows, columns]
        content = FA.content_attention_map(query, self.key[images], normalize_queries=self.normalize_queries)
        return content.unflatten(3, self.size).unflatten(2, query.shape[2:4])

    def _content_column(self, row: int, column: int) -> Tensor:
        if self.axial_content:
            return FA.axial_content_column(self.query, self.key, row, column)
        normalize = self.normalize_queries
        return FA.content_attention_column(self.query, self.key, row, column, normalize_queries=normalize)

    def _positional(self, images: slice, rows: slice, columns: slice) -> Tensor:
        return FA.global_positional_rows(self.query[images], self.table_rows, self.table_columns, rows, columns)


class AxialWeights(PairwiseWeights):
    """Weights of a single axial pass: a position takes from its own column or row alone.

    Args:
        query: ``(B, heads, H, W, d)``.
        value: Values, alike.
        table: Embeddings of the offsets.
        axis: 0 for the column pass, 1 for the row pass.
    """

    def __init__(self, query: Tensor, value: Tensor, table: Tensor, axis: int) -> None:
        super().__init__(detached(value))
        self.query, self.table, self.axis = detached(query), detached(table), axis

    def rows(self, images: slice, rows: slice, columns: slice, part: str = "both") -> Tensor:
        return axial_map(self.query[images], self.table, self.axis, rows, columns)


def axial_map(
    query: Tensor, table: Tensor, axis: int, rows: slice = slice(None), columns: slice = slice(None)
) -> Tensor:
    """Return what the positions in ``rows`` and ``columns`` take in one axial pass, ``(B, heads, a, b, H, W)``."""
    line = torch.eye(query.shape[3 - axis], dtype=upcast_dtype(query.dtype), device=query.device)
    if axis == 0:
        scores = FA.axial_positional_map(query[:, :, :, columns], table, 0)[:, :, rows]  # B, heads, a, b, p
        return scores.unsqueeze(5) * line[columns].unsqueeze(1)  # b, 1, q
    scores = FA.axial_positional_map(query[:, :, rows], table, 1)[:, :, :, columns]  # B, heads, a, b, q
    return scores.unsqueeze(4) * line[rows, None, :, None]  # a, 1, p, 1


def gain_and_shift(norm: nn.Module, before: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``g`` and ``b``, each ``(B, C)`` in float64 on the CPU, of ``norm(x) = g x + b`` at ``x = before``.

    The normalization is called, never read: it may have been replaced, wrapped or quantized. Its output for zeros and
    ones determines one that does not depend on its input (batch normalization in evaluation); of others, such as group
    normalization, ``g`` and ``b`` are fitted to its output for ``before``, exactly if they exist.

    Raises:
        ValueError: They do not exist, or what is normalized is not finite.
    """

    def wide(x: Tensor) -> Tensor:
        return x.detach().cpu().double()  # there are devices without float64

    after = normalized(norm, before)
    zeros = before.new_zeros(2, *before.shape[1:])  # two: one value of a channel has no deviation in training
    shift = wide(normalized(norm, zeros))[:1, :, 0, 0]
    gain = wide(normalized(norm, zeros + 1))[:1, :, 0, 0] - shift
    x, y = wide(before).flatten(2), wide(after).flatten(2)
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError(
            f"there are infinite values or NaNs around the {type(norm).__name__} between the passes, which no weights "
            "explain; look for them in the images and in the weights of the network"
        )
    bound = max(LINEAR, ROUNDINGS * torch.finfo(after.dtype).eps)
    if x.numel() and not _explains(gain, shift, x, y, bound):
        mean, mean_after = x.mean(2, keepdim=True), y.mean(2, keepdim=True)
        square = (x - mean).square().sum(2).clamp(min=1e-300)
        gain = ((x - mean) * (y - mean_after)).sum(2) / square  # 0 for a channel that is constant
        shift = (mean_after - gain[..., None] * mean).squeeze(2)
        if not _explains(gain, shift, x, y, bound):
            raise ValueError(
                f"{type(norm).__name__} between the passes is no gain and shift for each channel (as batch and group "
                "normalization are), so this module's output is not a weighted sum of its values; leave it out of "
                "names=…"
            )
    return gain.expand(x.shape[:2]), shift.expand(x.shape[:2])


def normalized(norm: nn.Module, x: Tensor) -> Tensor:
    """Return ``norm(x)``; in training by the statistics of ``x``, and the running ones stay as they are."""
    buffers = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    return torch.func.functional_call(norm, buffers, x)


def _explains(gain: Tensor, shift: Tensor, x: Tensor, y: Tensor, bound: float) -> bool:
    error = (gain[..., None] * x + shift[..., None] - y).abs().max()
    return bool(error <= bound * y.abs().max())


def _sum(content: Tensor | None, positional: Tensor | None) -> Tensor:
    terms = [term for term in (content, positional) if term is not None]
    return sum(terms[1:], terms[0])
