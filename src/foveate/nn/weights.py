"""Weights with which positions take from positions, in a form that gives any part of the N×N map on demand.

What makes the map (projections, tables, a radius) is copied to the CPU: the network may be trained on or deleted, the
weights remain those of the pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from foveate import _checks
from foveate._shapes import Float

__all__ = ["MAX_WEIGHTS", "PARTS", "FormedWeights", "PairwiseWeights"]

PARTS = ("both", "content", "positional")
MAX_WEIGHTS = 1 << 27
"""Most weights of one image, half a GiB, where a map can only be formed as a whole."""
WEIGHTS_AT_ONCE = 1 << 22
"""Number of weights formed at a time where the map can be formed in parts."""


class PairwiseWeights(ABC):
    """The map ``A`` of one attention module, ``A_ij`` being what position ``i`` takes from position ``j``.

    Signed, as they were applied. A position is ``(row, column)`` of the map.

    Examples:
        >>> module = foveate.nn.ExplicitAttention2d(8, radius=1.0)
        >>> weights = module.weights(torch.randn(1, 8, 1, 3))
        >>> weights.taken_by((0, 0))
        tensor([[[[0.5741, 0.3482, 0.0777]]]])
    """

    parts: tuple[str, ...] = PARTS[:1]
    """Parts that the weights can be divided into."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        """``(B, heads, H, W, d_v)``: what the weights are applied to."""
        self.images, self.heads, *size, _ = values.shape
        self.size = (size[0], size[1])
        """``(H, W)``: rows and columns of positions."""

    @abstractmethod
    def rows(
        self, images: slice, rows: slice, columns: slice, part: str = "both"
    ) -> Float[Tensor, "images heads attending_rows attending_columns height width"]:
        """Form what the positions in ``rows`` and ``columns`` take."""

    def taken_by(self, position: tuple[int, int], part: str = "both") -> Float[Tensor, "batch heads height width"]:
        """Form one row: what ``position`` takes from each position."""
        row, column = self._check(position, part)
        return self.rows(slice(None), slice(row, row + 1), slice(column, column + 1), part)[:, :, 0, 0]

    def given_by(self, position: tuple[int, int], part: str = "both") -> Float[Tensor, "batch heads height width"]:
        """Form one column: what each position takes from ``position``."""
        row, column = self._check(position, part)
        maps = self.values.new_empty(self.images, self.heads, *self.size)
        for images, rows in self._chunks():
            maps[images, :, rows] = self.rows(images, rows, slice(None), part)[..., row, column]
        return maps

    def received(
        self,
        part: str = "both",
        head: int | None = None,
        *,
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> Float[Tensor, "batch height width"]:
        """Sum magnitudes over the positions ``i`` in ``rows`` and ``columns`` and over heads: ``Σ_hi |A_hij|``.

        ``head`` is one head; all if None.
        """
        self._check((0, 0), part)
        heads = slice(None) if head is None else slice(head, _below("head", head, self.heads) + 1)
        if rows.step not in (None, 1):
            raise ValueError(f"rows must follow one another; got {rows}. Add what the others receive")
        total = self.values.new_zeros(self.images, *self.size)
        wanted = range(self.size[0])[rows]
        for images, chunk in self._chunks():
            own = range(self.size[0])[chunk]
            lines = slice(max(own.start, wanted.start), min(own.stop, wanted.stop))
            if lines.start < lines.stop:
                total[images] += self.rows(images, lines, columns, part)[:, heads].abs().sum((1, 2, 3))
        return total

    def taken_by_regions(
        self, regions: Float[Tensor, "regions height width"], *, image: int = 0, part: str = "both"
    ) -> Float[Tensor, "regions height width"]:
        """Sum magnitudes over heads and positions ``i`` of one image, weighed: ``Σ_hi r_i |A_hij|``, in float64.

        ``regions`` has the weight ``r_i`` of each attending position, once for each region.
        """
        self._check((0, 0), part)
        _below("image", image, self.images)
        if regions.ndim != 3 or tuple(regions.shape[1:]) != self.size:
            raise ValueError(
                f"regions must be (regions, {self.size[0]}, {self.size[1]}), as the map is; got {tuple(regions.shape)}"
            )
        total = self.values.new_zeros(len(regions), *self.size, dtype=torch.double)
        for images, rows in self._chunks():
            if image not in range(self.images)[images]:
                continue
            magnitudes = self.rows(slice(image, image + 1), rows, slice(None), part)[0].abs().sum(0).double()
            total += torch.einsum("rij,ijyx->ryx", regions[:, rows].double(), magnitudes)
        return total

    def attended(self, position: tuple[int, int]) -> Float[Tensor, "batch channels"]:
        """Apply the weights of ``position`` to the values of all heads.

        Of global self-attention this is the module's output at the position (before a pooling that follows it), of
        explicit and augmented attention the input of its output projection.
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


def _below(name: str, value: int, limit: int) -> int:
    if _checks.integer(name, value, minimum=0) >= limit:
        raise ValueError(f"{name} must be below {limit}; got {value}")
    return value


class FormedWeights(PairwiseWeights):
    """Weights whose map can only be formed as a whole, image by image.

    ``form`` returns the maps ``(images, heads, N, N)`` of some images, to be applied to ``values``.
    """

    def __init__(self, values: Tensor, form: Callable[[slice], Tensor]) -> None:
        super().__init__(values)
        self._form = form

    @staticmethod
    def check_size(values: Tensor) -> None:
        """Raise a `ValueError` if the map of one image would have more than `MAX_WEIGHTS` weights."""
        heads, height, width = values.shape[1:4]
        weights = heads * (height * width) ** 2
        if weights > MAX_WEIGHTS:
            raise ValueError(
                f"a map at {height}×{width} has {weights:.2g} weights, more than the {MAX_WEIGHTS:.2g} that are "
                "formed; leave the module out with names=…, or give smaller images"
            )

    def rows(self, images: slice, rows: slice, columns: slice, part: str = "both") -> Tensor:  # noqa: D102
        wanted = range(self.images)[images]
        if len(wanted) > 1:  # one after the other: what is wanted of a map is mostly a small part of it
            return torch.cat([self.rows(slice(image, image + 1), rows, columns).clone() for image in wanted])
        weights = self._form(images).unflatten(3, self.size).unflatten(2, self.size)
        return weights[:, :, rows, columns]

    def _chunks(self) -> Iterator[tuple[slice, slice]]:
        for image in range(self.images):
            yield slice(image, image + 1), slice(None)
