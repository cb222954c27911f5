"""The weights with which positions take from positions, held so that any part of the N×N map can be formed later.

What is kept of a module is what the map is made of (projections, tables, a radius), copied to the CPU: the network may
be trained on or thrown away, the weights remain those of the pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from foveate import _checks
from foveate import functional as FA
from foveate.nn import AttentionAugmentedConv2d, ExplicitAttention2d, GlobalSelfAttention2d

__all__ = ["MAX_WEIGHTS", "PARTS", "PairwiseWeights", "weights_of"]

PARTS = ("both", "content", "positional")
MAX_WEIGHTS = 1 << 27
"""Most weights of one image that are held at a time, where a map can only be formed as a whole: half a GiB."""
WEIGHTS_AT_ONCE = 1 << 22
"""As many weights are formed at a time where the map can be formed in parts."""


class PairwiseWeights(ABC):
    """The map ``A`` of one attention module, ``A_ij`` being what position ``i`` takes from position ``j``.

    Signed, as they were applied. A position is ``(row, column)`` of the map.
    """

    parts: tuple[str, ...] = PARTS[:1]
    """What the weights can be divided into."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        """``(B, heads, H, W, d_v)``: what the weights are applied to."""
        self.images, self.heads, *size, _ = values.shape
        self.size = (size[0], size[1])
        """``(H, W)``: rows and columns of positions."""

    @abstractmethod
    def rows(self, images: slice, rows: slice, columns: slice, part: str = "both") -> Tensor:
        """Form what the positions in ``rows`` and ``columns`` take: ``(images, heads, rows, columns, H, W)``."""

    def taken_by(self, position: tuple[int, int], part: str = "both") -> Tensor:
        """Form one row: what ``position`` takes from each position, ``(B, heads, H, W)``."""
        row, column = self._check(position, part)
        return self.rows(slice(None), slice(row, row + 1), slice(column, column + 1), part)[:, :, 0, 0]

    def given_by(self, position: tuple[int, int], part: str = "both") -> Tensor:
        """Form one column: what each position takes from ``position``, ``(B, heads, H, W)``."""
        row, column = self._check(position, part)
        maps = self.values.new_empty(self.images, self.heads, *self.size)
        for images, rows in self._chunks():
            maps[images, :, rows] = self.rows(images, rows, slice(None), part)[..., row, column]
        return maps

    def received(self, part: str = "both", head: int | None = None) -> Tensor:
        """Sum magnitudes over the rows, and over the heads if ``head`` names none: ``Σ_hi |A_hij|``, ``(B, H, W)``."""
        self._check((0, 0), part)
        heads = slice(None) if head is None else slice(head, head + 1)
        total = self.values.new_zeros(self.images, *self.size)
        for images, rows in self._chunks():
            total[images] += self.rows(images, rows, slice(None), part)[:, heads].abs().sum((1, 2, 3))
        return total

    def attended(self, position: tuple[int, int]) -> Tensor:
        """Apply the weights of ``position`` to the values, ``(B, heads·d_v)``.

        Of global self-attention this is the module's output at the position (before a pooling that follows it), of
        explicit and augmented attention what its output projection gets.
        """
        return torch.einsum("bhyx,bhyxd->bhd", self.taken_by(position), self.values).flatten(1)

    def _chunks(self) -> Iterator[tuple[slice, slice]]:
        """Yield images and rows of the map, all of them in turn, of about `WEIGHTS_AT_ONCE` weights."""
        height, width = self.size
        line = self.heads * width * height * width
        lines = min(height, max(1, WEIGHTS_AT_ONCE // line))
        images = max(1, WEIGHTS_AT_ONCE // (line * height))
        for image in range(0, self.images, images):
            for row in range(0, height, lines):
                yield slice(image, image + images), slice(row, row + lines)

    def _check(self, position: tuple[int, int], part: str) -> tuple[int, int]:
        _checks.one_of("part", part, self.parts)
        row, column = _checks.pair("position", position, minimum=0)
        if row >= self.size[0] or column >= self.size[1]:
            raise ValueError(f"position={position} lies outside of a map of {self.size[0]}×{self.size[1]}")
        return row, column


class GlobalSelfWeights(PairwiseWeights):
    """Of global self-attention: ``C_ij + g P_ij``, content and position.

    Between the two axial passes stands a batch normalisation, ``v ↦ g_c v + b_c`` for each channel. The weight with
    which channel ``c`` of a head takes ``j`` is ``C_ij + g_c P_ij``; those of a head are the mean over its channels,

        A_ij = C_ij + ḡ P_ij.

    `attended` uses each channel's own ``g_c``, and ``b_c``. A module of one part has that one alone.
    """

    def __init__(self, module: GlobalSelfAttention2d, x: Tensor) -> None:
        self.query, self.key, values = map(_kept, module.project(x))
        super().__init__(values)
        self.has = {part for part in PARTS if module.part in ("both", part)}
        self.parts = PARTS if module.part == "both" else PARTS[:1]
        if module.part == "content":
            return
        self.table_rows, self.table_columns = _kept(module.rel_width), _kept(module.rel_height)
        weight, bias, mean, var = (
            _kept(x).unflatten(0, (self.heads, -1)) for x in _normalisation(module)
        )  # each heads, d_v
        self.gain = weight * (var + module.norm.eps).rsqrt()
        self.shift = bias - mean * self.gain

    def rows(self, images: slice, rows: slice, columns: slice, part: str = "both") -> Tensor:
        content = positional = None
        if "content" in self.has and part != "positional":
            query = self.query[images, :, rows, columns]
            content = FA.content_attention_map(query, self.key[images])
            content = content.unflatten(3, self.size).unflatten(2, query.shape[2:4])
        if "positional" in self.has and part != "content":
            positional = self._positional(images, rows, columns) * self.gain.mean(1)[:, None, None, None, None]
        return _sum(content, positional)

    def given_by(self, position: tuple[int, int], part: str = "both") -> Tensor:
        row, column = self._check(position, part)
        content = positional = None
        if "content" in self.has and part != "positional":
            content = FA.content_attention_column(self.query, self.key, row, column)
        if "positional" in self.has and part != "content":
            positional = FA.global_positional_column(self.query, self.table_rows, self.table_columns, row, column)
            positional = positional * self.gain.mean(1)[:, None, None]
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

    def _positional(self, images: slice, rows: slice, columns: slice) -> Tensor:
        return FA.global_positional_rows(self.query[images], self.table_rows, self.table_columns, rows, columns)


class ExplicitWeights(PairwiseWeights):
    """Of explicit attention: a function of distance, the same for every image."""

    def __init__(self, module: ExplicitAttention2d, x: Tensor) -> None:
        super().__init__(_kept(module.values(x)).permute(0, 2, 3, 1).unsqueeze(1))
        self.radius, self.kernel = _kept(module.radius), module.kernel

    def rows(self, images: slice, rows: slice, columns: slice, part: str = "both") -> Tensor:
        weights = FA.explicit_attention_rows(*self.size, self.radius, self.kernel, rows, columns)
        return weights.expand(len(self.values[images]), 1, *weights.shape)


class FormedWeights(PairwiseWeights):
    """Of attention whose map can only be formed as a whole: augmented convolution, and modules of others."""

    def __init__(self, values: Tensor, form: Callable[[slice], Tensor]) -> None:
        super().__init__(values)
        self._form = form

    def rows(self, images: slice, rows: slice, columns: slice, part: str = "both") -> Tensor:
        weights = self._form(images).unflatten(3, self.size).unflatten(2, self.size)
        return weights[:, :, rows, columns]

    def _chunks(self) -> Iterator[tuple[slice, slice]]:
        for image in range(self.images):
            yield slice(image, image + 1), slice(None)


def weights_of(name: str, module: Any, x: Tensor) -> PairwiseWeights:
    """Return the weights of ``module``, one with an ``attention_map`` of N×N, for its input ``x``.

    Raises:
        ValueError: They could only be formed as a whole, and would be more than `MAX_WEIGHTS`.
    """
    if isinstance(module, GlobalSelfAttention2d):
        return GlobalSelfWeights(module, x)
    if isinstance(module, ExplicitAttention2d):
        return ExplicitWeights(module, x)
    if isinstance(module, AttentionAugmentedConv2d):
        query, key, values = map(_kept, module.project(x))
        _limit(name, values)
        tables = _kept(module.rel_height), _kept(module.rel_width)
        return FormedWeights(values, lambda images: FA.augmented_attention_map(query[images], key[images], *tables))
    size = (x.shape[2], x.shape[3])
    values = _kept(module.values(x))  # B, heads, N, d_v
    if values.shape[2] != size[0] * size[1]:
        raise ValueError(
            f"the values of {name} are at {values.shape[2]} positions, its input is {size[0]}×{size[1]}; a module of "
            "yours must attend at the resolution of its input to be explained"
        )
    values = values.unflatten(2, size)
    _limit(name, values)
    weights = _kept(module.attention_map(x))
    return FormedWeights(values, lambda images: weights.expand(len(values), -1, -1, -1)[images])


def _limit(name: str, values: Tensor) -> None:
    heads, height, width = values.shape[1:4]
    weights = heads * (height * width) ** 2
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"the map of {name} at {height}×{width} has {weights:.2g} weights, more than the {MAX_WEIGHTS:.2g} that "
            "are formed; leave it out with names=…, or give smaller images"
        )


def _normalisation(module: GlobalSelfAttention2d) -> tuple[Tensor, ...]:
    norm = module.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None  # it is built with both
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def _kept(x: Tensor) -> Tensor:
    """Return a copy on the CPU, in at least float32, that nothing changes any more."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to(device="cpu", dtype=dtype, copy=True)


def _sum(content: Tensor | None, positional: Tensor | None) -> Tensor:
    terms = [term for term in (content, positional) if term is not None]
    return sum(terms[1:], terms[0])
