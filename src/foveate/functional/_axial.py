"""The axial pass of GSA as a custom operator that recomputes its scores in the backward pass.

An operator rather than an `autograd.Function`, so that `torch.compile` and the FLOP counter see through it. Without
kernels for the device (`foveate.kernels`), everything is a batched matrix product over views; ``n`` is the length of
the attended lines, ``m`` their number, ``rows`` the lines of one part (some images × heads × lines):

    scores (n, rows, n)  =  q (n, rows, d)       · vectorsᵀ (n, d, n)      one product per query position
    out    (rows, n, c)  =  scoresᵀ (rows, n, n) · v (rows, n, c)          one product per line
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveate import kernels
from foveate.functional._layout import by_position
from foveate.functional._plain import differentiable_gradients, uses_plain_operators
from foveate.functional._precision import autocast_off, upcast
from foveate.functional.relative import relative_scores, relative_vectors
from foveate.kernels.sizes import check_axial

__all__ = ["axial_pass"]

SCORES_AT_ONCE = {"cpu": 2**19}
SCORES_ELSEWHERE = 2**27
"""Most scores that exist at a time: on a CPU, what its caches hold; elsewhere, what keeps the device busy."""


def axial_pass(query: Tensor, value: Tensor, window: Tensor, axis: int, fused: bool | None = None) -> Tensor:
    """Compute ``y_ab = Σ_k (q_ab · r_{k−a}) v_kb`` along ``axis`` (0: H, 1: W) of ``(B, heads, H, W, d)`` tensors.

    Args:
        query: ``(B, heads, H, W, d)``.
        value: ``(B, heads, H, W, c)``; the result has its dtype, sums are in at least float32.
        window: ``(2n − 1, d)``, embeddings of the offsets ``−(n − 1) … n − 1`` of a line of ``n`` pixels.
        axis: 0 or 1.
        fused: As in `foveate.kernels.axial`.
    """
    if uses_plain_operators(query, value, window, fused=fused):
        return _plain(query, value, window, axis)
    return torch.ops.foveate.axial_pass(query, value, window, axis, fused)


def _plain(query: Tensor, value: Tensor, window: Tensor, axis: int) -> Tensor:
    scores = relative_scores(upcast(query), relative_vectors(upcast(window), query.shape[2 + axis]), axis)
    order = (3 - axis, 0, 1, 2 + axis, 4)  # m, B, heads, n, channels: see relative_scores
    out = torch.matmul(scores.permute(order), upcast(value).permute(order))
    return (out.permute(1, 2, 3, 0, 4) if axis == 0 else out.permute(1, 2, 0, 3, 4)).to(value.dtype)


@torch.library.custom_op("foveate::axial_pass", mutates_args=())
def _forward(query: Tensor, value: Tensor, window: Tensor, axis: int, fused: bool | None) -> Tensor:
    if kernel := kernels.axial(query, value, fused):
        return kernel.axial_forward(query, value, window, axis)
    check_axial(query, value, window, axis)
    out = by_position(value)
    query, value, window = upcast(query), upcast(value), upcast(window)
    vectors = relative_vectors(window)
    for part in _parts(query, axis):
        q, v = part.read(query), part.read(value)
        scores = torch.bmm(q, vectors.transpose(1, 2))
        part.write(out, torch.bmm(scores.transpose(0, 1), v.transpose(0, 1)).transpose(0, 1))
    return out


@_forward.register_fake
def _(query: Tensor, value: Tensor, window: Tensor, axis: int, fused: bool | None) -> Tensor:
    check_axial(query, value, window, axis)
    return by_position(value)


@torch.library.custom_op("foveate::axial_pass_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, value: Tensor, window: Tensor, axis: int, fused: bool | None
) -> tuple[Tensor, Tensor, Tensor]:
    if kernel := kernels.axial(query, value, fused):
        return kernel.axial_backward(grad, query, value, window, axis)
    check_axial(query, value, window, axis, grad)
    grad_query, grad_value, dtype = by_position(query), by_position(value), window.dtype
    grad, query, value, window = upcast(grad), upcast(query), upcast(value), upcast(window)
    vectors = relative_vectors(window)
    grad_vectors = torch.zeros_like(vectors)
    for part in _parts(query, axis):
        q, v, g = part.read(query), part.read(value), part.read(grad).transpose(0, 1)  # g: rows, n, c
        scores = torch.bmm(q, vectors.transpose(1, 2))
        part.write(grad_value, torch.bmm(scores.permute(1, 2, 0), g).transpose(0, 1))
        grad_scores = torch.bmm(g, v.permute(1, 2, 0)).transpose(0, 1)  # n, rows, n
        part.write(grad_query, torch.bmm(grad_scores, vectors))
        grad_vectors.baddbmm_(grad_scores.transpose(1, 2), q)
    return grad_query, grad_value, _fold(grad_vectors).to(dtype)


@_backward.register_fake
def _(
    grad: Tensor, query: Tensor, value: Tensor, window: Tensor, axis: int, fused: bool | None
) -> tuple[Tensor, Tensor, Tensor]:
    check_axial(query, value, window, axis, grad)
    return by_position(query), by_position(value), torch.empty_like(window)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.axis, ctx.fused = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    with autocast_off(grad):
        if torch.is_grad_enabled() or uses_plain_operators(grad):  # to be differentiated again, or for a batch of them
            plain = partial(_plain, axis=ctx.axis)
            gradients = differentiable_gradients(plain, ctx.saved_tensors, ctx.needs_input_grad[:3], grad)
        else:
            gradients = torch.ops.foveate.axial_pass_backward(grad, *ctx.saved_tensors, ctx.axis, ctx.fused)
    return (*gradients, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.foveate.axial_pass)
def _flops(query: tuple, value: tuple, window: tuple, axis: int, *args: Any, **kwargs: Any) -> int:
    """Count 2 FLOPs per multiply-add; arguments are shapes."""
    batch, heads, height, width, dim = query
    return 2 * batch * heads * height * width * query[2 + axis] * (dim + value[-1])


@register_flop_formula(torch.ops.foveate.axial_pass_backward)
def _flops_backward(
    grad: tuple, query: tuple, value: tuple, window: tuple, axis: int, *args: Any, **kwargs: Any
) -> int:
    """Count the recomputed scores and the four products of the gradients."""
    batch, heads, height, width, dim = query
    return 2 * batch * heads * height * width * query[2 + axis] * (3 * dim + 2 * value[-1])


@dataclass(frozen=True)
class _Part:
    """Some images, heads and lines of ``(B, heads, H, W, d)`` tensors, seen with the attended axis first."""

    images: slice
    heads: slice
    lines: slice
    axis: int

    def _view(self, x: Tensor) -> Tensor:
        x = x[self.images, self.heads]
        x = x.permute(2, 0, 1, 3, 4) if self.axis == 0 else x.permute(3, 0, 1, 2, 4)
        return x[:, :, :, self.lines]  # n, images, heads, lines, d

    def read(self, x: Tensor) -> Tensor:
        """Return this part of ``x`` as ``(n, rows, d)``."""
        return self._view(x).flatten(1, 3)

    def write(self, target: Tensor, x: Tensor) -> None:
        """Store ``x``, ``(n, rows, d)``, in this part of ``target``."""
        view = self._view(target)
        view.copy_(x.unflatten(1, view.shape[1:4]))


def _parts(query: Tensor, axis: int) -> Iterator[_Part]:
    """Cut the work into parts of at most `SCORES_AT_ONCE` scores: some images, or heads, or lines of one."""
    batch, heads, *sides, _ = query.shape
    n, m = sides[axis], sides[1 - axis]
    lines = max(1, SCORES_AT_ONCE.get(query.device.type, SCORES_ELSEWHERE) // n**2)
    steps = max(1, lines // max(1, m * heads)), max(1, min(heads, lines // m)), min(m, lines)
    starts = (range(0, size, step) for size, step in zip((batch, heads, m), steps, strict=True))
    for first in product(*starts):
        images, some_heads, some_lines = (slice(i, i + step) for i, step in zip(first, steps, strict=True))
        yield _Part(images, some_heads, some_lines, axis)


def _fold(grad_vectors: Tensor) -> Tensor:
    """Sum ``(n, n, d)`` along its diagonals, back to the ``(2n − 1, d)`` offsets, in a fixed order."""
    n, _, dim = grad_vectors.shape
    skewed = grad_vectors.new_zeros(n, 2 * n - 1, dim)
    # Entry (i, j) belongs to offset j − i: one column further left in each row.
    skewed.as_strided((n, n, dim), ((2 * n - 2) * dim, dim, 1), (n - 1) * dim).copy_(grad_vectors)
    return skewed.sum(0)
