"""Whether a submodule may be computed by its owner in one operator with others, which passes its ``forward`` by."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

__all__ = ["has_no_gradient", "is_untouched"]


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Tell whether ``module`` is of this very class, its forward its own, with nobody who would see it called."""
    return (
        type(module) is kind
        and "forward" not in vars(module)
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module_hooks._global_forward_hooks
        and not module_hooks._global_forward_pre_hooks
    )


def has_no_gradient(module: nn.Module, x: Tensor) -> bool:
    """Tell whether ``module`` is in evaluation mode and no gradient of ``module(x)`` can be asked for.

    In training mode one may: reentrant checkpoints compute twice, first without gradients, and want the same bits.
    """
    if module.training:
        return False
    return not (torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters())))
