"""`ExpAttConv2d` with its 1×1 convolutions folded, where it pays into a single convolution, and then in training too.

1×1 convolutions act on channels and the map ``A`` on positions, so they commute: ``W_O (A (W_V x)) = A ((W_O W_V) x)``.
Average pooling followed by a 1×1 convolution is a 3×3 convolution with the stride of the pooling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.functional._layout import is_channels_last
from foveate.functional._plain import uses_plain_operators
from foveate.functional._pooling import average_pool
from foveate.functional._precision import autocast_off, upcast
from foveate.functional.explicit import explicit_attention
from foveate.nn._untouched import has_no_gradient, is_untouched

if TYPE_CHECKING:
    from foveate.nn.explicit import ExpAttConv2d, ExplicitAttention2d

__all__ = ["convolve_and_attend"]

BLOCK = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
"""Output channels that a 3×3 convolution of oneDNN computes at a time: filling a block is free."""


def convolve_and_attend(module: ExpAttConv2d, attention: type[ExplicitAttention2d], x: Tensor) -> Tensor | None:
    """Return the output, or None where the submodules have to be called one by one.

    The weights are folded anew in every call, so that any change of them takes effect.
    """
    if isinstance(x, torch.fx.Proxy) or not _is_foldable(module, attention, x):
        return None
    if _is_joinable(module):
        return _in_one_convolution(module, x)
    if module.training:
        return None
    pooled = x if module.attention.stride == 1 else average_pool(x, module.attention.stride)
    value = F.linear(pooled.permute(0, 2, 3, 1), _folded(module.attention)).permute(0, 3, 1, 2)
    return torch.cat([module.conv(x), _attend(module.attention, value)], dim=1)


def _is_foldable(module: ExpAttConv2d, kind: type[ExplicitAttention2d], x: Tensor) -> bool:
    """Tell whether folding is faster and loses nothing: no hook, no submodule of another kind."""
    own = module.attention
    if x.device.type != "cpu" or not _is_fast(module, x) or not is_untouched(own, kind) or own.downsample:
        return False
    # FLOP counters and tracers are to see the operators of the modules.
    if not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack():
        return False
    pointwise = ((1, 1), (1, 1), (0, 0), (1, 1))
    return (
        _is_convolution(own.value, *pointwise)
        and _is_convolution(own.proj, *pointwise)
        and not uses_plain_operators(x, *module.parameters())
    )


def _is_fast(module: ExpAttConv2d, x: Tensor) -> bool:
    if module.training:  # with gradients or without: a reentrant checkpoint computes both
        return not torch.compiler.is_compiling()
    return is_channels_last(x) and has_no_gradient(module, x)


def _is_joinable(module: ExpAttConv2d) -> bool:
    """Tell whether one 3×3 convolution computes ``module.conv`` and the values in the time of the former."""
    if not is_untouched(module.conv, nn.Conv2d) or _blocks(module.out_channels - module.dim_value) != _blocks(
        module.out_channels
    ):
        return False
    stride, dilation = module.attention.stride, module.conv.dilation
    dtypes = {weight.dtype for weight in (module.conv.weight, *module.attention.parameters())}
    return (
        _is_convolution(module.conv, (3, 3), (stride, stride), dilation, dilation)
        and (stride == 1 or dilation == (1, 1))
        and len(dtypes) == 1
    )


def _is_convolution(
    conv: nn.Module,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> bool:
    return (
        is_untouched(conv, nn.Conv2d)
        and isinstance(conv, nn.Conv2d)
        and type(conv.weight) in (Tensor, nn.Parameter)
        and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == (kernel_size, stride, padding, dilation)
        and (conv.bias, conv.groups, conv.padding_mode) == (None, 1, "zeros")
    )


def _blocks(channels: int) -> int:
    return (channels + BLOCK - 1) // BLOCK


def _folded(attention: ExplicitAttention2d) -> Tensor:
    """Return ``W_O W_V``, ``(dim_out, dim)``."""
    value, proj = attention.value.weight, attention.proj.weight
    with autocast_off(value):
        return (upcast(proj.flatten(1)) @ upcast(value.flatten(1))).to(value.dtype)


def _attend(attention: ExplicitAttention2d, value: Tensor) -> Tensor:
    return explicit_attention(value, attention.radius, attention.kernel)


def _in_one_convolution(module: ExpAttConv2d, x: Tensor) -> Tensor:
    """Compute all channels in one convolution, and attend to the last of them in place."""
    conv, attention = module.conv, module.attention
    out_channels = conv.out_channels
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    weight = conv.weight.new_zeros(out_channels + attention.dim_out, conv.in_channels, 3, 3)
    weight = weight.to(memory_format=layout)
    weight[:out_channels] = conv.weight
    if attention.stride == 1:
        weight[out_channels:, :, 1, 1] = _folded(attention)
    else:
        weight[out_channels:] = _folded(attention)[:, :, None, None] / 9
    out = F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation)
    value = out[:, out_channels:]
    # A copy: going backward the values are needed as they are now.
    value.copy_(_attend(attention, value.clone(memory_format=layout)))
    return out
