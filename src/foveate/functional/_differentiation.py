"""What the custom operators cannot do, said where PyTorch would be silent."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["reverse_mode_only"]


def reverse_mode_only(*tensors: Tensor) -> None:
    """Raise `NotImplementedError` for forward-mode differentiation, in which a custom operator's tangent is zero."""
    if torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            "global self-attention has no forward-mode derivative (torch.func.jvp, forward_ad); use reverse mode, or "
            "differentiate GlobalSelfAttention2d.forward_by_maps"
        )
