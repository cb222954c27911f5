"""The content attention of GSA as a custom operator that keeps no weights for its backward pass.

An operator rather than an `autograd.Function`, so that `torch.compile` and the FLOP counter see through it. With
``w = exp(k − peak) / total``, the softmax of each key channel over the positions:

    context = Σ wᵀ v      y = q context
    ∂q = ∂y contextᵀ      ∂context = Σ qᵀ ∂y      ∂v = w ∂context      ∂k = w ∘ (v ∂contextᵀ − Σ_c context ∘ ∂context)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveate import kernels
from foveate.functional._layout import by_position
from foveate.functional._plain import differentiable_gradients, uses_plain_operators
from foveate.functional._precision import autocast_off, upcast, upcast_dtype
from foveate.kernels.sizes import check_content

__all__ = ["content"]

Four = tuple[Tensor, Tensor, Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


def content(query: Tensor, key: Tensor, value: Tensor, fused: bool | None = None) -> Tensor:
    """Compute ``Q (ρ(Kᵀ) V)`` for ``(B, heads, H, W, d)`` tensors, in their dtype; sums are in at least float32."""
    if uses_plain_operators(query, key, value, fused=fused):
        return _plain(query, key, value)
    return torch.ops.foveate.content(query, key, value, fused)[0]


def _plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (upcast(x).flatten(2, 3) for x in (query, key, value))  # B, heads, N, d
    context = torch.matmul(k.softmax(2).transpose(2, 3), v)
    return torch.matmul(q, context).view(value.shape).to(value.dtype)


@torch.library.custom_op("foveate::content", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor, fused: bool | None) -> Four:
    if kernel := kernels.content(query, value, fused):
        return kernel.content_forward(query, key, value)
    check_content(query, key, value)
    q, k, v = (upcast(x).flatten(2, 3) for x in (query, key, value))  # B, heads, N, d
    peak = k.amax(2)
    weights = (k - peak.unsqueeze(2)).exp()
    total = weights.sum(2)
    context = (weights.transpose(2, 3) @ v) / total.unsqueeze(-1)  # normalized where only d × c numbers are left
    return by_position(value).copy_((q @ context).view(value.shape)), context, peak, total


@_forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, fused: bool | None) -> Four:
    check_content(query, key, value)
    batch, heads, *_, dim = query.shape
    context = query.new_empty(batch, heads, dim, value.shape[-1], dtype=upcast_dtype(value.dtype))
    return by_position(value), context, torch.empty_like(context[..., 0]), torch.empty_like(context[..., 0])


@torch.library.custom_op("foveate::content_backward", mutates_args=())
def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    context: Tensor,
    peak: Tensor,
    total: Tensor,
    fused: bool | None,
) -> Three:
    if kernel := kernels.content(query, value, fused):
        return kernel.content_backward(grad, query, key, value, context, peak, total)
    check_content(query, key, value, context, peak, total, grad=grad)
    g, q, k, v = (upcast(x).flatten(2, 3) for x in (grad, query, key, value))
    weights = (k - peak.unsqueeze(2)).exp() / total.unsqueeze(2)
    grad_context = q.transpose(2, 3) @ g
    grad_key = weights * (v @ grad_context.transpose(2, 3) - (context * grad_context).sum(-1).unsqueeze(2))
    return (
        by_position(query).copy_((g @ context.transpose(2, 3)).view(query.shape)),
        by_position(key).copy_(grad_key.view(key.shape)),
        by_position(value).copy_((weights @ grad_context).view(value.shape)),
    )


@_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    context: Tensor,
    peak: Tensor,
    total: Tensor,
    fused: bool | None,
) -> Three:
    check_content(query, key, value, context, peak, total, grad=grad)
    return by_position(query), by_position(key), by_position(value)


def _save(ctx: Any, inputs: tuple, output: Four) -> None:
    *tensors, ctx.fused = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    with autocast_off(grad):
        if torch.is_grad_enabled() or uses_plain_operators(grad):  # to be differentiated again, or for a batch of them
            gradients = differentiable_gradients(_plain, ctx.saved_tensors[:3], ctx.needs_input_grad[:3], grad)
        else:
            gradients = torch.ops.foveate.content_backward(grad, *ctx.saved_tensors, ctx.fused)
    return (*gradients, None)


_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.foveate.content)
def _flops(query: tuple, key: tuple, value: tuple, *args: Any, **kwargs: Any) -> int:
    """Count the two products, 2 FLOPs per multiply-add; arguments are shapes."""
    batch, heads, height, width, dim = query
    return 4 * batch * heads * height * width * dim * value[-1]


@register_flop_formula(torch.ops.foveate.content_backward)
def _flops_backward(grad: tuple, query: tuple, key: tuple, value: tuple, *args: Any, **kwargs: Any) -> int:
    """Count the four products of the gradients."""
    batch, heads, height, width, dim = query
    return 8 * batch * heads * height * width * dim * value[-1]
