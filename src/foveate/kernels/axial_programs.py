"""The Triton programs of `foveate.kernels.axial_triton`, which says what they compute and why in this way.

A program takes ``ROWS`` rows at a time. Tiles of query positions have a line ``m`` for each (row, slot).
"""

from __future__ import annotations

import triton
import triton.language as tl

from foveate.kernels.axial_tiles import SLOTS, dot, image_at, load_slotted, load_values, load_vectors, offsets, own_slot

__all__ = ["fold", "forward", "grad_query", "grad_value", "grad_vectors"]


@triton.jit
def forward(
    query: tl.tensor,
    value: tl.tensor,
    window: tl.tensor,
    out: tl.tensor,
    query_strides: tl.tuple,
    value_strides: tl.tuple,
    out_strides: tl.tuple,
    heads: int,
    lines: int,
    n: int,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    KEY_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute ``y_a = Σ_k (q_a · r_{k−a}) v_k`` of some rows; their values are read once if ``KEYS`` cover the line."""
    blocks = tl.cdiv(heads * lines, ROWS)
    image, base = tl.program_id(0) // blocks, tl.program_id(0) % blocks * ROWS
    query, value = image_at(query, image, query_strides, UNIT), image_at(value, image, value_strides, UNIT)
    out = image_at(out, image, out_strides, UNIT)
    m = tl.arange(0, ROWS * SLOTS)
    row, slot, second = base + m // SLOTS, m % SLOTS, m // SLOTS % 2
    c = tl.arange(0, C)
    if KEY_BLOCKS == 1:
        k = tl.arange(0, KEYS)
        v = load_values(value, k, base, heads, lines, n, value_strides, CHANNELS, C, UNIT, ROWS, KEYS)
    for start in range(0, n, SLOTS):
        a = start + slot
        inside = (row < heads * lines) & (a < n)
        q_at = query + offsets(row, a, heads, query_strides, UNIT)
        y_at = out + offsets(row, a, heads, out_strides, UNIT)
        y = tl.zeros((ROWS // 2, 2 * SLOTS, 2 * C), tl.float32)
        for block in range(KEY_BLOCKS):
            k = block * KEYS + tl.arange(0, KEYS)
            scores = tl.zeros((ROWS * SLOTS, KEYS), tl.float32)
            for first in range(0, DIM, D):
                q = load_slotted(q_at, slot, inside, first, DIM, D, SLOTS)
                r = load_vectors(window, k, start, first, n, DIM, D)
                scores += dot(q, tl.trans(r), PRECISION)
            if KEY_BLOCKS > 1:
                v = load_values(value, k, base, heads, lines, n, value_strides, CHANNELS, C, UNIT, ROWS, KEYS)
            y += dot(tl.reshape(scores.to(v.dtype), (ROWS // 2, 2 * SLOTS, KEYS)), v, PRECISION)
        y = own_slot(tl.reshape(y, (ROWS * SLOTS, 2 * C)), second, ROWS * SLOTS, C, 2)
        mask = inside[:, None] & (c < CHANNELS)[None, :]
        tl.store(y_at[:, None] + c[None, :], y.to(out.dtype.element_ty), mask=mask)


@triton.jit
def grad_query(
    grad: tl.tensor,
    value: tl.tensor,
    window: tl.tensor,
    out: tl.tensor,
    grad_strides: tl.tuple,
    value_strides: tl.tuple,
    out_strides: tl.tuple,
    heads: int,
    lines: int,
    n: int,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    KEY_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute ``∂q_a = Σ_k (g_a · v_k) r_{k−a}`` of some rows, as `forward` computes ``y``."""
    blocks = tl.cdiv(heads * lines, ROWS)
    image, base = tl.program_id(0) // blocks, tl.program_id(0) % blocks * ROWS
    grad, value = image_at(grad, image, grad_strides, UNIT), image_at(value, image, value_strides, UNIT)
    out = image_at(out, image, out_strides, UNIT)
    m = tl.arange(0, ROWS * SLOTS)
    row, slot, second = base + m // SLOTS, m % SLOTS, m // SLOTS % 2
    if KEY_BLOCKS == 1:
        k = tl.arange(0, KEYS)
        v = load_values(value, k, base, heads, lines, n, value_strides, CHANNELS, C, UNIT, ROWS, KEYS)
    for start in range(0, n, SLOTS):
        a = start + slot
        inside = (row < heads * lines) & (a < n)
        g_at = grad + offsets(row, a, heads, grad_strides, UNIT)
        q_at = out + offsets(row, a, heads, out_strides, UNIT)
        g = tl.reshape(load_slotted(g_at, second, inside, 0, CHANNELS, C, 2), (ROWS // 2, 2 * SLOTS, 2 * C))
        for first in range(0, DIM, D):
            dq = tl.zeros((ROWS * SLOTS, SLOTS * D), tl.float32)
            for block in range(KEY_BLOCKS):
                k = block * KEYS + tl.arange(0, KEYS)
                if KEY_BLOCKS > 1:
                    v = load_values(value, k, base, heads, lines, n, value_strides, CHANNELS, C, UNIT, ROWS, KEYS)
                ds = tl.reshape(dot(g, tl.permute(v, (0, 2, 1)), PRECISION), (ROWS * SLOTS, KEYS))
                r = load_vectors(window, k, start, first, n, DIM, D)
                dq += dot(ds.to(r.dtype), r, PRECISION)
            d = first + tl.arange(0, D)
            mask = inside[:, None] & (d < DIM)[None, :]
            dq = own_slot(dq, slot, ROWS * SLOTS, D, SLOTS)
            tl.store(q_at[:, None] + d[None, :], dq.to(out.dtype.element_ty), mask=mask)


@triton.jit
def grad_value(
    query: tl.tensor,
    grad: tl.tensor,
    window: tl.tensor,
    out: tl.tensor,
    query_strides: tl.tuple,
    grad_strides: tl.tuple,
    out_strides: tl.tuple,
    heads: int,
    lines: int,
    n: int,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    KEY_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute ``∂v_k = Σ_a (q_a · r_{k−a}) g_a`` of some rows at ``KEYS`` positions."""
    blocks = tl.cdiv(heads * lines, ROWS)
    program = tl.program_id(0) // KEY_BLOCKS
    image, base = program // blocks, program % blocks * ROWS
    query, grad = image_at(query, image, query_strides, UNIT), image_at(grad, image, grad_strides, UNIT)
    out = image_at(out, image, out_strides, UNIT)
    m = tl.arange(0, ROWS * SLOTS)
    row, slot, second = base + m // SLOTS, m % SLOTS, m // SLOTS % 2
    k = tl.program_id(0) % KEY_BLOCKS * KEYS + tl.arange(0, KEYS)
    dv = tl.zeros((ROWS // 2, KEYS, 2 * C), tl.float32)
    for start in range(0, n, SLOTS):
        a = start + slot
        inside = (row < heads * lines) & (a < n)
        q_at = query + offsets(row, a, heads, query_strides, UNIT)
        g_at = grad + offsets(row, a, heads, grad_strides, UNIT)
        scores = tl.zeros((ROWS * SLOTS, KEYS), tl.float32)
        for first in range(0, DIM, D):
            q = load_slotted(q_at, slot, inside, first, DIM, D, SLOTS)
            r = load_vectors(window, k, start, first, n, DIM, D)
            scores += dot(q, tl.trans(r), PRECISION)
        g = tl.reshape(load_slotted(g_at, second, inside, 0, CHANNELS, C, 2), (ROWS // 2, 2 * SLOTS, 2 * C))
        s = tl.reshape(scores.to(g.dtype), (ROWS // 2, 2 * SLOTS, KEYS))
        dv += dot(tl.permute(s, (0, 2, 1)), g, PRECISION)
    column = tl.arange(0, ROWS * C)
    v_row, c = base + column // C, column % C
    v_at = out + offsets(v_row[None, :], k[:, None], heads, out_strides, UNIT) + c[None, :]
    mask = (k < n)[:, None] & ((v_row < heads * lines) & (c < CHANNELS))[None, :]
    dv = tl.reshape(tl.permute(dv, (1, 0, 2)), (KEYS, ROWS * C))
    tl.store(v_at, dv.to(out.dtype.element_ty), mask=mask)


@triton.jit
def grad_vectors(
    query: tl.tensor,
    grad: tl.tensor,
    value: tl.tensor,
    partial: tl.tensor,
    query_strides: tl.tuple,
    grad_strides: tl.tuple,
    value_strides: tl.tuple,
    images: int,
    heads: int,
    lines: int,
    n: int,
    image_parts: int,
    row_parts: int,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    KEY_BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute ``∂r_{a,k} = Σ_rows (g_a · v_k) q_a`` of one part: every so manieth block of rows and image."""
    start = tl.program_id(0) // KEY_BLOCKS * SLOTS
    k = tl.program_id(0) % KEY_BLOCKS * KEYS + tl.arange(0, KEYS)
    first = tl.program_id(1) * D
    part = tl.program_id(2)
    m = tl.arange(0, ROWS * SLOTS)
    slot, second = m % SLOTS, m // SLOTS % 2
    dr = tl.zeros((SLOTS * D, KEYS), tl.float32)
    for block in range(part % row_parts, tl.cdiv(heads * lines, ROWS), row_parts):
        row, base = block * ROWS + m // SLOTS, block * ROWS
        inside = (row < heads * lines) & (start + slot < n)
        q_at = offsets(row, start + slot, heads, query_strides, UNIT)
        g_at = offsets(row, start + slot, heads, grad_strides, UNIT)
        for image in range(part // row_parts, images, image_parts):
            g_ptr = image_at(grad, image, grad_strides, UNIT) + g_at
            g = tl.reshape(load_slotted(g_ptr, second, inside, 0, CHANNELS, C, 2), (ROWS // 2, 2 * SLOTS, 2 * C))
            v_ptr = image_at(value, image, value_strides, UNIT)
            v = load_values(v_ptr, k, base, heads, lines, n, value_strides, CHANNELS, C, UNIT, ROWS, KEYS)
            ds = tl.reshape(dot(g, tl.permute(v, (0, 2, 1)), PRECISION), (ROWS * SLOTS, KEYS))
            q_ptr = image_at(query, image, query_strides, UNIT) + q_at
            q = load_slotted(q_ptr, slot, inside, first, DIM, D, SLOTS)
            dr += dot(tl.trans(q), ds.to(q.dtype), PRECISION)
    column = tl.arange(0, SLOTS * D)
    a, d = start + column // D, first + column % D
    r_at = partial + ((part.to(tl.int64) * n + a) * n * DIM + d)[:, None] + (k * DIM)[None, :]
    tl.store(r_at, dr, mask=((a < n) & (d < DIM))[:, None] & (k < n)[None, :])


@triton.jit
def fold(
    partial: tl.tensor, out: tl.tensor, parts: int, n: int, DIM: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    """Sum all parts ``(parts, n, n, d)`` of ``∂r_{a,k}`` over the pairs of one offset ``k − a``."""
    offset = tl.program_id(0) - (n - 1)
    d = tl.arange(0, D)
    total = tl.zeros((BLOCK, D), tl.float32)
    for start in range(0, parts * n, BLOCK):
        row = start + tl.arange(0, BLOCK)  # part · n + a
        k = row % n + offset
        mask = ((row < parts * n) & (k >= 0) & (k < n))[:, None] & (d < DIM)[None, :]
        r_at = partial + (row.to(tl.int64) * n + k)[:, None] * DIM + d[None, :]
        total += tl.load(r_at, mask=mask, other=0.0)
    tl.store(out + tl.program_id(0) * DIM + d, tl.sum(total, 0).to(out.dtype.element_ty), mask=d < DIM)
