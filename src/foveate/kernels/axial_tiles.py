"""The tiles that the Triton programs of GSA's axial pass multiply, and how they come from memory.

A *row* is one line of one head, ``line · heads + head`` within its image. Query positions ``a`` go in blocks of
`SLOTS`. ``strides`` are those of (image, head, line, position), in multiples of ``UNIT``, which tells the compiler how
wide it may load.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["SLOTS", "dot", "image_at", "load_slotted", "load_values", "load_vectors", "offsets", "own_slot"]

SLOTS = tl.constexpr(8)
"""Query positions at a time: two rows of them are the 16 lines of a tensor core's tile."""

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(x: tl.tensor, y: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """Multiply matrices. Triton's interpreter cannot multiply bfloat16; widening it changes no number."""
    if INTERPRETED:
        x, y = x.to(tl.float32), y.to(tl.float32)
    return tl.dot(x, y, input_precision=PRECISION)


@triton.jit
def image_at(pointer: tl.tensor, image: int, strides: tl.tuple, UNIT: tl.constexpr) -> tl.tensor:
    """Return where an image begins."""
    return pointer + tl.cast(image, tl.int64) * strides[0] * UNIT


@triton.jit
def offsets(row: tl.tensor, position: tl.tensor, heads: int, strides: tl.tuple, UNIT: tl.constexpr) -> tl.tensor:
    """Return where the vectors of these rows and positions begin within an image."""
    head, line = (row % heads).to(tl.int64), (row // heads).to(tl.int64)
    return (head * strides[1] + line * strides[2] + position.to(tl.int64) * strides[3]) * UNIT


@triton.jit
def load_slotted(
    pointers: tl.tensor,
    slot: tl.tensor,
    inside: tl.tensor,
    first: int,
    DIM: tl.constexpr,
    D: tl.constexpr,
    NUMBER: tl.constexpr,
) -> tl.tensor:
    """Load ``D`` channels from ``first`` on of each vector into its slot, 0 in the others: ``(M, NUMBER · D)``."""
    column = tl.arange(0, NUMBER * D)
    d = first + column % D
    mask = (slot[:, None] == (column // D)[None, :]) & inside[:, None] & (d < DIM)[None, :]
    return tl.load(pointers[:, None] + d[None, :], mask=mask, other=0.0)


@triton.jit
def own_slot(x: tl.tensor, slot: tl.tensor, M: tl.constexpr, D: tl.constexpr, NUMBER: tl.constexpr) -> tl.tensor:
    """Take from each line of ``(M, NUMBER · D)`` what is in its slot: ``(M, D)``."""
    own = slot[:, None, None] == tl.arange(0, NUMBER)[None, :, None]
    return tl.sum(tl.where(own, tl.reshape(x, (M, NUMBER, D)), 0.0), 1)


@triton.jit
def load_vectors(
    window: tl.tensor, k: tl.tensor, start: int, first: int, n: int, DIM: tl.constexpr, D: tl.constexpr
) -> tl.tensor:
    """Load ``r_{k−a}`` for the slots ``a`` from ``start`` on: ``(K, SLOTS · D)``. The window stays in the L1 cache."""
    column = tl.arange(0, SLOTS * D)
    d = first + column % D
    offset = k[:, None] - (start + column // D)[None, :] + (n - 1)
    mask = (offset >= 0) & (offset < 2 * n - 1) & (d < DIM)[None, :]
    return tl.load(window + offset * DIM + d[None, :], mask=mask, other=0.0)


@triton.jit
def load_values(
    value: tl.tensor,
    k: tl.tensor,
    base: int,
    heads: int,
    lines: int,
    n: int,
    strides: tl.tuple,
    CHANNELS: tl.constexpr,
    C: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
) -> tl.tensor:
    """Load the values of the rows from ``base`` on, in pairs: ``(ROWS / 2, KEYS, 2 · C)``."""
    column = tl.arange(0, ROWS * C)
    row, c = base + column // C, column % C
    mask = (k < n)[:, None] & ((row < heads * lines) & (c < CHANNELS))[None, :]
    v = tl.load(value + offsets(row[None, :], k[:, None], heads, strides, UNIT) + c[None, :], mask=mask, other=0.0)
    return tl.permute(tl.reshape(v, (KEYS, ROWS // 2, 2 * C)), (1, 0, 2))
