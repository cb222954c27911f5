"""All of GSA that follows the projection, in training, as one node of the graph.

    Q (ρ(Kᵀ) V)  +  row_pass(norm(column_pass(V)))

It computes what the operators of `foveate.functional.global_self` and `torch.nn.functional.batch_norm` compute, with
less memory: the normalized map and the scores exist for a few lines at a time, the row pass is added to the content in
place, and so are the parts of the gradient of the projection. Whoever looks at operators (compilers, exporters,
dispatch modes, `torch.func`) gets those.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import _get_current_dispatch_mode

from foveate.functional._axial import axial_pass
from foveate.functional._content import content
from foveate.functional._global_self import fits
from foveate.functional._layout import merge_heads, split_heads
from foveate.functional._plain import differentiable_gradients, uses_plain_operators
from foveate.functional._precision import autocast_off

__all__ = ["fits_training", "global_self_training"]

Widths = tuple[int, int, int]
Affine = tuple[Tensor | None, Tensor | None]
Statistics = tuple[Tensor, Tensor] | None


def fits_training(projection: Tensor, fused: bool | None, *others: Tensor) -> bool:
    """Tell whether there are kernels, and only autograd observes the operators."""
    return (
        not torch.compiler.is_compiling()
        and _get_current_dispatch_mode() is None
        and all(type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu" for x in (projection, *others))
        and fits(projection, fused, *others)
        and projection.numel() > 0
    )


def global_self_training(
    projection: Tensor,
    windows: tuple[Tensor, Tensor],
    affine: Affine,
    statistics: Statistics,
    epsilon: float,
    widths: Widths,
    num_heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result, ``(B, dim_out, H, W)`` in channels_last, and the statistics of the normalization.

    Args:
        projection: Queries, keys and values, ``(B, sum(widths), H, W)`` in channels_last, where `fits_training`.
        windows: Embeddings of the offsets of a column, ``(2H − 1, d)``, and of a row, ``(2W − 1, d)``.
        affine: Weight and bias of the normalization, ``(dim_out,)``.
        statistics: Its mean and variance (biased), ``(dim_out,)``; None for those of the batch.
        epsilon: What is added to the variance.
        widths: Channels of queries, keys and values.
        num_heads: Number of heads.
    """
    out, *found = _Training.apply(projection, *windows, *affine, statistics, epsilon, widths, num_heads)
    return out.permute(0, 3, 1, 2), *found


def _by_parts(*differentiated: Any, settings: tuple[Statistics, float, Widths, int]) -> Tensor:
    """Return the result, ``(B, H, W, dim_out)``, by operators that can be differentiated twice."""
    projection, down, along, weight, bias = differentiated
    statistics, epsilon, widths, num_heads = settings
    query, key, value = split_heads(projection, widths, num_heads)
    hidden = merge_heads(axial_pass(query, value, down, 0))
    mean, variance = statistics or (None, None)
    hidden = functional.batch_norm(hidden, mean, variance, weight, bias, training=statistics is None, eps=epsilon)
    (values,) = split_heads(hidden, (widths[2],), num_heads)
    result = content(query, key, value) + axial_pass(query, values, along, 1)
    return merge_heads(result).permute(0, 2, 3, 1)


class _Training(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        projection: Tensor,
        down: Tensor,
        along: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        statistics: Statistics,
        epsilon: float,
        widths: Widths,
        num_heads: int,
    ) -> tuple[Tensor, ...]:
        from foveate.kernels import cpu

        batch, _, height, width = projection.shape
        heads = split_heads(projection, widths, num_heads)
        out = projection.new_empty(batch, height, width, widths[2])  # no view: what follows may work on it in place
        (to,) = split_heads(out.permute(0, 3, 1, 2), (widths[2],), num_heads)
        made = cpu.training(to, heads, (down, along), (weight, bias), statistics, epsilon)
        ctx.settings = epsilon, widths, num_heads
        ctx.of_batch = statistics is None
        ctx.save_for_backward(projection, down, along, weight, bias, *made)
        mean, variance = (x.detach() for x in made[:2])
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from foveate.kernels import cpu

        grad = grads[0]
        projection, down, along, weight, bias, *made = ctx.saved_tensors
        epsilon, widths, num_heads = ctx.settings
        if _by_operators(grad):
            parts = partial(_by_parts, settings=(None if ctx.of_batch else (made[0], made[1]), *ctx.settings))
            inputs = projection, down, along, weight, bias
            with autocast_off(grad):
                return (*differentiable_gradients(parts, inputs, ctx.needs_input_grad[:5], grad), *[None] * 4)
        (of,) = split_heads(grad.permute(0, 3, 1, 2), (widths[2],), num_heads)
        of_projection = torch.empty_like(projection, memory_format=torch.channels_last)
        small = cpu.training_backward(
            split_heads(of_projection, widths, num_heads),
            of,
            split_heads(projection, widths, num_heads),
            (down, along),
            (weight, bias),
            tuple(made),
            epsilon,
            ctx.of_batch,
        )
        wanted = (one if needed else None for one, needed in zip(small, ctx.needs_input_grad[1:5], strict=True))
        return (of_projection, *wanted, *[None] * 4)


def _by_operators(grad: Tensor) -> bool:
    """Tell whether a gradient is to be differentiated again, or is one of a batch (`is_grads_batched`)."""
    batched = torch._C._functorch.is_legacy_batchedtensor(grad)
    return batched or torch.is_grad_enabled() or uses_plain_operators(grad)
