"""All of GSA that follows the projection, in training, as two nodes of the graph, before and after the normalization.

    query, hidden, content  =  columns_and_content(projection)          hidden: the column pass
    result                  =  add_rows(query, norm(hidden), content)

They compute what the operators of `foveate.functional.global_self` compute, with less memory: the row pass is added to
the content in place, and so are the six parts of the gradient of the projection. Whoever looks at operators (compilers,
exporters, dispatch modes, `torch.func`) gets those of `foveate.functional.global_self`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from foveate.functional._axial import axial_pass
from foveate.functional._content import content
from foveate.functional._global_self import fits
from foveate.functional._layout import by_position, merge_heads, split_heads
from foveate.functional._plain import differentiable_gradients, uses_plain_operators

__all__ = ["add_rows", "columns_and_content", "fits_training"]

Widths = tuple[int, int, int]

TOGETHER = 32
"""Images from which on a backward pass goes image by image, whatever the threads: of so many shares its sums are."""


def fits_training(projection: Tensor, fused: bool | None, *others: Tensor) -> bool:
    """Tell whether there are kernels, and only autograd observes the operators."""
    return (
        not torch.compiler.is_compiling()
        and _get_current_dispatch_mode() is None
        and all(type(x) in (Tensor, torch.nn.Parameter) for x in (projection, *others))
        and fits(projection, fused, *others)
        and projection.numel() > 0
    )


def columns_and_content(
    projection: Tensor, window: Tensor, widths: Widths, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries ``(B, heads, H, W, d)``, column pass ``(B, dim_out, H, W)``, and content ``(B, H, W, dim_out)``.

    The content is not transposed: a tensor that is added to in place must not be a view.

    Args:
        projection: Queries, keys and values, ``(B, sum(widths), H, W)`` in channels_last, where `fits_training`.
        window: ``(2H − 1, d)``, embeddings of the offsets of a column.
        widths: Channels of queries, keys and values.
        num_heads: Number of heads.
    """
    query, hidden, attended = _Before.apply(projection, window, widths, num_heads)
    return query, hidden.permute(0, 3, 1, 2), attended


def add_rows(query: Tensor, hidden: Tensor, window: Tensor, content: Tensor) -> Tensor:
    """Add the row pass over ``hidden``, ``(B, dim_out, H, W)``, to ``content`` in place; return it in that order."""
    fits = hidden.dtype == content.dtype and hidden.device == content.device
    (values,) = split_heads(hidden, (hidden.shape[1],), query.shape[1])
    if fits and values.shape[:4] == query.shape[:4] and hidden.shape[1] == content.shape[3]:
        return _After.apply(query, values, window, content).permute(0, 3, 1, 2)
    rows = axial_pass(
        query.to(values.dtype), values, window.to(values.dtype), 1
    )  # after a normalization of another kind
    return content.permute(0, 3, 1, 2) + merge_heads(rows)


def _by_head(x: Tensor, num_heads: int) -> Tensor:
    """Return ``x``, ``(B, H, W, channels)``, as ``(B, heads, H, W, channels / heads)``."""
    return split_heads(x.permute(0, 3, 1, 2), (x.shape[3],), num_heads)[0]


class _Before(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projection: Tensor, window: Tensor, widths: Widths, num_heads: int) -> tuple[Tensor, ...]:
        from foveate.kernels import cpu

        ctx.widths, ctx.num_heads = widths, num_heads
        batch, _, height, width = projection.shape
        query, key, value = split_heads(projection, widths, num_heads)
        # No views: the second will be added to in place.
        hidden, attended = (value.new_empty(batch, height, width, widths[2]) for _ in range(2))
        out = _by_head(attended, num_heads), _by_head(hidden, num_heads)
        if batch >= torch.get_num_threads():
            sums = cpu.before_norm(out, query, key, value, window)
        else:
            sums = cpu.content_forward_into(out[0], query, key, value)
            cpu.axial_forward_into(out[1], query, value, window, 0, add=False)
        ctx.save_for_backward(projection, window, *sums)
        return query, hidden, attended

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from foveate.kernels import cpu

        projection, window, *sums = ctx.saved_tensors
        if _by_operators(*grads):
            return (*_again(ctx, projection, window, grads), None, None)
        of_query, of_hidden, of_content = grads
        query, key, value = split_heads(projection, ctx.widths, ctx.num_heads)
        result = torch.empty_like(projection, memory_format=torch.channels_last)
        to_query, to_key, to_value = split_heads(result, ctx.widths, ctx.num_heads)
        to = to_query, to_key, to_value
        of_content, of_hidden = (_by_head(x, ctx.num_heads) for x in (of_content, of_hidden))
        if len(result) >= TOGETHER:
            of = of_content, of_hidden, of_query
            return result, cpu.before_norm_backward(to, of, query, key, value, window, *sums), None, None
        cpu.content_backward_into(to, of_content, query, key, value, *sums)
        of_window = cpu.axial_backward_into((to_query, to_value), of_hidden, query, value, window, 0, add=True)
        to_query += of_query
        return result, of_window, None, None


def _by_operators(*grads: Tensor) -> bool:
    """Tell whether a gradient is to be differentiated again, or is one of a batch (`is_grads_batched`)."""
    batched = any(torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads)
    return batched or torch.is_grad_enabled() or uses_plain_operators(*grads)


def _again(ctx: Any, projection: Tensor, window: Tensor, grads: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    def parts(projection: Tensor, window: Tensor) -> tuple[Tensor, ...]:
        query, key, value = split_heads(projection, ctx.widths, ctx.num_heads)
        made = axial_pass(query, value, window, 0), content(query, key, value)
        return query, *(merge_heads(x).permute(0, 2, 3, 1) for x in made)

    return differentiable_gradients(parts, (projection, window), ctx.needs_input_grad[:2], grads)


class _After(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, hidden: Tensor, window: Tensor, content: Tensor) -> Tensor:
        from foveate.kernels import cpu

        ctx.save_for_backward(query, hidden, window)
        ctx.mark_dirty(content)
        cpu.axial_forward_into(_by_head(content, query.shape[1]), query, hidden, window, 1, add=True)
        return content

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from foveate.kernels import cpu

        (grad,) = grads
        query, hidden, window = ctx.saved_tensors
        if _by_operators(grad):

            def rows(query: Tensor, hidden: Tensor, window: Tensor) -> Tensor:
                return axial_pass(query, hidden, window, 1)

            of_rows = _by_head(grad, query.shape[1])
            found = differentiable_gradients(rows, (query, hidden, window), ctx.needs_input_grad[:3], of_rows)
            return (*found, grad)
        to = by_position(query), by_position(hidden)
        of_window = cpu.axial_backward_into(to, _by_head(grad, query.shape[1]), query, hidden, window, 1, add=False)
        return (*to, of_window, grad)
