"""Poolings before and behind attention, and the way back to the resolution of its input."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveate.functional._plain import uses_plain_operators
from foveate.functional._precision import autocast_off

__all__ = ["average_pool", "block_average_pool", "strided_size", "upsample_to_stride"]


def average_pool(x: Tensor, stride: int) -> Tensor:
    """Return the means of 3×3 windows ``stride`` apart, zeros around the border counted in.

    On a CPU in float32 a convolution with one fixed filter for each channel is faster, two to three times with channels
    first. Whoever watches the operators, such as a counter of FLOPs, sees a pooling.
    """
    if _convolves(x):
        channels = x.shape[1]
        with autocast_off(x):
            return F.conv2d(x, x.new_full((channels, 1, 3, 3), 1 / 9), None, stride, padding=1, groups=channels)
    return F.avg_pool2d(x, 3, stride, padding=1)


def block_average_pool(x: Tensor, stride: int) -> Tensor:
    """Return the means of blocks of ``stride × stride``; an incomplete one averages what it has."""
    if torch.compiler.is_compiling():  # one graph for even and odd sizes
        room = (0, stride - 1) * 2
        there = F.pad(x.new_ones(1, 1, *x.shape[2:]), room)
        return F.avg_pool2d(F.pad(x, room), stride) / F.avg_pool2d(there, stride)
    return F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)


def strided_size(x: Tensor, *strides: int) -> tuple[int, int]:
    """Return height and width of ``x`` after strides that divide them, rounded up."""
    height, width = x.shape[2:]
    for stride in strides:
        height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
    return height, width


def upsample_to_stride(attended: Tensor, x: Tensor, stride: int) -> Tensor:
    """Bring a map that was attended at a lower resolution to that which ``x`` has after ``stride``, bilinearly."""
    return F.interpolate(attended, strided_size(x, stride), mode="bilinear")


def _convolves(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    return not torch._C._len_torch_dispatch_stack() and not uses_plain_operators(x)
