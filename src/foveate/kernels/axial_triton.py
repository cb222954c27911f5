"""The axial pass of GSA in Triton: ``y_ab = Σ_k (q_ab · r_{k−a}) v_kb`` and its gradients, scores kept on the chip.

What has to move is ``q``, ``v`` and ``y``, once each. What is hard is that ``r_{k−a}`` changes with both positions, so
that the scores of a line are no product of two matrices. Here, eight query positions go together: each query stands in
its own slot of a vector eight times as long,

    scores[(row, a), k] = Σ_{a', d} q̃[(row, a), (a', d)] · r[(a', d), k],      q̃ = q_a in slot a, 0 in the others

which is one product for all lines of all heads. It multiplies eight times as much, on tensor cores that would wait for
memory; but no score ever moves between threads: what this product leaves in registers is what the next one, a product
for each line with its values, takes from there. The gradients follow the same pattern. Alternatives:

- One product for each query position, ``(rows, d) · (d, n)``: the scores then have to change from a matrix for each
  position to one for each line, through shared memory. At 56 pixels and 8 channels that takes as long as reading the
  line, and several times as long with the bank conflicts of Triton's layouts.
- The queries of a line times the whole window, row ``a`` then shifted by ``a``: twice the scores, and a shift that
  shared memory does number by number.
- Values first, ``y_a = Σ_d q_ad (Σ_k r_{k−a,d} v_k)``: ``d·c / (d + c)`` times the multiplications, and the sum over
  ``d`` is not for tensor cores.

Sums are in float32 and in a fixed order, so that results are bit-equal from run to run: the gradient of the window is
summed by about `PROGRAMS` programs, each into a table of its own, and a second kernel adds these up. Scores are rounded
to the dtype of what they multiply next. As zeros multiply the vectors of other slots, a number that is not finite can
spread to its neighbours.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from foveate.kernels import axial_programs as programs
from foveate.kernels.axial_tiles import SLOTS
from foveate.kernels.sizes import check_axial

__all__ = ["axial_backward", "axial_forward", "supports"]

MAX_VECTOR_BYTES = 256
"""Of a head's values, whose sums a program holds in registers."""


@dataclass(frozen=True)
class Tile:
    """What a program holds at a time."""

    channels: int
    """Of the queries; more of them are summed in several steps."""
    values: int
    """Keys × channels of the values."""
    rows: int = 8
    """Lines × heads."""
    warps: int = 4
    stages: int = 2


# By the bytes of a number. Chosen without a GPU, from what ptxas says for compute capability 9.0 at the sizes of
# gsa_resnet50 in half precision: hardly a register spilled, at most 99 KiB of shared memory (all that some GPUs have),
# two to five programs on a multiprocessor. The place to tune.
TILES = {
    2: {
        "forward": Tile(16, 1024),
        "grad_query": Tile(16, 1024),
        "grad_value": Tile(16, 1024),
        "grad_vectors": Tile(32, 1024),
    },
    4: {
        "forward": Tile(8, 512),
        "grad_query": Tile(8, 512),
        "grad_value": Tile(8, 512),
        "grad_vectors": Tile(8, 512),
    },
}

FUSION = {"enable_fp_fusion": True}
"""Multiply-adds round once. Triton warns where this is left open."""

PROGRAMS = 512
"""How many programs sum the gradient of the window: enough for every multiprocessor, few enough to add up."""


def supports(query: Tensor, value: Tensor) -> bool:
    """Tell whether the kernels should take these tensors: where tensor cores may, and a head's values are few enough.

    That is half precision, and float32 where ``torch.backends.cuda.matmul.fp32_precision`` is ``tf32``. `axial_forward`
    computes in exact float32 too, but eight times the multiplications are too many without tensor cores.
    """
    exact = {query.dtype, value.dtype} - {torch.float16, torch.bfloat16}
    narrow = value.ndim == 5 and value.shape[-1] * max(query.itemsize, value.itemsize) <= MAX_VECTOR_BYTES
    if value.is_cuda and torch.version.hip is None:  # older ones have no such instructions, nor Triton code for them
        needed = 8 if torch.bfloat16 in (query.dtype, value.dtype) else 7
        narrow = narrow and torch.cuda.get_device_capability(value.device)[0] >= needed
    return narrow and (not exact or (exact == {torch.float32} and _precision() == "tf32"))


def axial_forward(query: Tensor, value: Tensor, window: Tensor, axis: int) -> Tensor:
    """Compute ``y_ab = Σ_k (q_ab · r_{k−a}) v_kb`` along ``axis`` (0: H, 1: W).

    Args:
        query: ``(B, heads, H, W, d)``, any strides; fastest where memory is ordered ``(B, H, W, heads, d)``.
        value: ``(B, heads, H, W, c)``, likewise.
        window: ``(2n − 1, d)``, the vectors of the offsets ``−(n − 1) … n − 1`` of a line of ``n`` pixels; they are
            rounded to the dtype of the queries.
        axis: 0 or 1.

    Returns:
        ``(B, heads, H, W, c)`` in the dtype of ``value``, memory ordered ``(B, H, W, heads, c)``.

    Raises:
        ValueError: A tensor is not as described.
    """
    check_axial(query, value, window, axis)
    query, value = _dense(query), _dense(value)
    out = _by_position(value)
    _Pass(query, value, axis).rows("forward", query, value, _vectors(window, query), out)
    return out


def axial_backward(
    grad: Tensor, query: Tensor, value: Tensor, window: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `axial_forward` with respect to query, value and window; scores are computed again.

    Returns:
        Gradients in the dtypes of what they belong to, the first two with memory ordered ``(B, H, W, heads, ·)``.

    Raises:
        ValueError: A tensor is not as described.
    """
    check_axial(query, value, window, axis, grad)
    grad, query, value, vectors = _dense(grad), _dense(query), _dense(value), _vectors(window, query)
    grad_query, grad_value, grad_window = _by_position(query), _by_position(value), window.new_empty(window.shape)
    run = _Pass(query, value, axis)
    run.rows("grad_query", grad, value, vectors, grad_query)
    run.rows("grad_value", query, grad, vectors, grad_value)
    run.window(query, grad, value, grad_window)
    return grad_query, grad_value, grad_window


class _Pass:
    """Launches the programs of one pass: along ``axis`` of ``(B, heads, H, W, ·)`` tensors."""

    def __init__(self, query: Tensor, value: Tensor, axis: int) -> None:
        self.images, self.heads = query.shape[:2]
        self.n, self.lines = query.shape[2 + axis], query.shape[3 - axis]
        self.dim, self.channels = query.shape[-1], value.shape[-1]
        self.order = (0, 1, 3 - axis, 2 + axis)  # image, head, line, position
        self.itemsize = max(query.itemsize, value.itemsize)
        if self.itemsize not in TILES or not query.numel() or not value.numel():
            raise ValueError(f"no Triton kernel for {query.dtype} of shapes {tuple(query.shape)}, {tuple(value.shape)}")

    def rows(self, name: str, first: Tensor, second: Tensor, vectors: Tensor, out: Tensor) -> None:
        """Run a program for each block of rows and, for the gradient of the values, of keys."""
        constants = self.constants(name)
        blocks = self.images * triton.cdiv(self.heads * self.lines, constants["ROWS"])
        grid = (blocks * constants["KEY_BLOCKS"] if name == "grad_value" else blocks,)
        strides, unit = self.strides(first, second, out)
        sizes = self.heads, self.lines, self.n
        with torch.cuda.device_of(out):
            getattr(programs, name)[grid](first, second, vectors, out, *strides, *sizes, UNIT=unit, **constants)

    def window(self, query: Tensor, grad: Tensor, value: Tensor, out: Tensor) -> None:
        """Sum the gradient of the window into ``out``, in parts that `PROGRAMS` bounds."""
        constants = self.constants("grad_vectors")
        blocks = triton.cdiv(self.n, SLOTS.value) * constants["KEY_BLOCKS"], triton.cdiv(self.dim, constants["D"])
        parts = triton.cdiv(PROGRAMS, math.prod(blocks))
        row_parts = min(parts, triton.cdiv(self.heads * self.lines, constants["ROWS"]))
        image_parts = min(triton.cdiv(parts, row_parts), max(1, self.images))
        parts = row_parts * image_parts
        partial = query.new_empty((parts, self.n, self.n, self.dim), dtype=torch.float32)
        strides, unit = self.strides(query, grad, value)
        sizes = self.images, self.heads, self.lines, self.n, image_parts, row_parts
        width = triton.next_power_of_2(self.dim)
        fold = {"DIM": self.dim, "D": width, "BLOCK": max(1, 4096 // width), **FUSION}
        with torch.cuda.device_of(out):
            programs.grad_vectors[(*blocks, parts)](
                query, grad, value, partial, *strides, *sizes, UNIT=unit, **constants
            )
            programs.fold[(2 * self.n - 1,)](partial, out, parts, self.n, **fold)

    def constants(self, name: str) -> dict[str, Any]:
        """Return what a program is compiled for: channels and keys padded to powers of 2, in blocks that fit."""
        tile = TILES[self.itemsize][name]
        channels = max(8, triton.next_power_of_2(self.channels))
        keys = max(16, min(64, tile.values // channels, triton.next_power_of_2(self.n)))
        return {
            "DIM": self.dim,
            "CHANNELS": self.channels,
            "D": max(2, min(tile.channels, triton.next_power_of_2(self.dim))),
            "C": channels,
            "ROWS": tile.rows,
            "KEYS": keys,
            "KEY_BLOCKS": triton.cdiv(self.n, keys),
            "PRECISION": _precision(),
            "num_warps": tile.warps,
            "num_stages": tile.stages if channels * self.itemsize < MAX_VECTOR_BYTES else 1,
            **FUSION,
        }

    def strides(self, *tensors: Tensor) -> tuple[list[tuple[int, ...]], int]:
        """Return the strides of (image, head, line, position) in multiples of a unit, up to 8 numbers, and the unit."""
        strides = [tuple(t.stride(i) if t.shape[i] > 1 else 0 for i in self.order) for t in tensors]
        unit = math.gcd(8, *itertools.chain(*strides))
        return [tuple(stride // unit for stride in each) for each in strides], unit


def _precision() -> str:
    """Return how tensor cores may round float32: ``ieee`` is not at all."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def _dense(x: Tensor) -> Tensor:
    """Return ``x`` with neighbouring channels next to each other in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _vectors(window: Tensor, query: Tensor) -> Tensor:
    return window.to(query.dtype).contiguous()


def _by_position(x: Tensor) -> Tensor:
    """Return an empty tensor of ``x``'s shape whose memory is ordered ``(B, H, W, heads, channels)``."""
    batch, heads, height, width, channels = x.shape
    return x.new_empty(batch, height, width, heads, channels).permute(0, 3, 1, 2, 4)
