"""All of GSA that follows the projection, at inference, as one custom operator.

    pool(Q (ρ(Kᵀ) V)  +  row_pass(norm(column_pass(V))))

The projection is read once and the result written once; intermediates stay in the processor's caches. It has no
derivative: where one is needed, the operators of `foveate.functional.global_self` compute the same in parts, in float32
to the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveate import kernels
from foveate.functional._plain import uses_plain_operators

__all__ = ["fits", "global_self_inference"]

WIDE = (torch.float32, torch.float64)


def fits(projection: Tensor, fused: bool | None, *others: Tensor) -> bool:
    """Tell whether there is a kernel for a projection (float32 or float64, on a CPU); ``others`` are parameters."""
    if uses_plain_operators(projection, *others, fused=fused):
        return False
    return projection.dtype in WIDE and projection.device.type == "cpu" and _compiled(fused)


@torch.compiler.assume_constant_result
def _compiled(fused: bool | None) -> bool:
    return kernels.on_cpu(fused) is not None


def global_self_inference(
    projection: Tensor,
    windows: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor, Tensor | None, Tensor | None, float],
    num_heads: int,
    dim_key: int,
    stride: int,
) -> Tensor:
    """Compute the result, ``(B, dim_out, ⌈H/stride⌉, ⌈W/stride⌉)`` in channels_last, where `fits` is true.

    Args:
        projection: Queries, keys and values, ``(B, 2·dim_key + dim_out, H, W)``.
        windows: Embeddings of the offsets ``−(H − 1) … H − 1`` of the column pass, ``(2H − 1, dim_key / heads)``, and
            those of the row pass, ``(2W − 1, dim_key / heads)``.
        norm: Mean, variance, weight and bias, each ``(dim_out,)``, and ε of the normalization between the passes.
        num_heads: Number of heads.
        dim_key: Channels of the queries, and of the keys.
        stride: Window of the average pooling; at the border, only pixels of the map are averaged.
    """
    return torch.ops.foveate.global_self(projection, *windows, *norm, num_heads, dim_key, stride)


def _result(projection: Tensor, small: tuple[Tensor | None, ...], num_heads: int, dim_key: int, stride: int) -> Tensor:
    """Allocate the result for tensors whose sizes fit: the kernel trusts every size."""
    if projection.dtype not in WIDE or projection.device.type not in ("cpu", "meta"):
        raise ValueError(
            f"global_self: a projection must be float32 or float64 on a CPU; got {projection.dtype} on "
            f"{projection.device}"
        )
    if min(num_heads, dim_key, stride) < 1 or projection.ndim != 4 or projection.shape[1] <= 2 * dim_key:
        raise ValueError(
            f"global_self: num_heads={num_heads}, dim_key={dim_key} and stride={stride} do not fit a projection "
            f"(B, 2·dim_key + dim_out, H, W) of shape {tuple(projection.shape)}; all of them must be at least 1"
        )
    batch, channels, height, width = projection.shape
    dim = channels - 2 * dim_key
    if dim_key % num_heads or dim % num_heads:
        raise ValueError(f"global_self: num_heads={num_heads} must divide dim_key={dim_key} and dim_out={dim}")
    wanted = ((2 * height - 1, dim_key // num_heads), (2 * width - 1, dim_key // num_heads), *[(dim,)] * 4)
    for tensor, shape in zip(small, wanted, strict=True):
        if tensor is not None and (tensor.shape != shape or tensor.device != projection.device):
            raise ValueError(
                f"global_self: a tensor must be {shape} on {projection.device}; got {tuple(tensor.shape)} on "
                f"{tensor.device}"
            )
    sides = (height + stride - 1) // stride, (width + stride - 1) // stride
    return projection.new_empty(batch, *sides, dim).permute(0, 3, 1, 2)


@torch.library.custom_op("foveate::global_self", mutates_args=())
def _forward(
    projection: Tensor,
    down: Tensor,
    along: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    num_heads: int,
    dim_key: int,
    stride: int,
) -> Tensor:
    tensors = (down, along, mean, variance, weight, bias)
    out = _result(projection, tensors, num_heads, dim_key, stride)
    if not out.numel():
        return out
    kernel = kernels.content(projection, projection, True)
    assert kernel is not None, "fused=True raises where there is none"
    projection = projection.contiguous(memory_format=torch.channels_last)
    small = [x if x is None else x.to(projection.dtype).contiguous() for x in tensors]
    norm = (*small[2:], epsilon)
    return kernel.global_self(projection, tuple(small[:2]), norm, num_heads, dim_key, stride, out)


@_forward.register_fake
def _(
    projection: Tensor,
    down: Tensor,
    along: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    num_heads: int,
    dim_key: int,
    stride: int,
) -> Tensor:
    return _result(projection, (down, along, mean, variance, weight, bias), num_heads, dim_key, stride)


@register_flop_formula(torch.ops.foveate.global_self)
def _flops(projection: tuple, *args: Any, **kwargs: Any) -> int:
    """Count content attention and both passes, 2 FLOPs per multiply-add; arguments are shapes."""
    batch, channels, height, width = projection
    num_heads, dim_key, _ = args[-3:]
    value = channels - 2 * dim_key
    content = 4 * dim_key * value // num_heads
    return batch * height * width * (content + 2 * (height + width) * (dim_key + value))
