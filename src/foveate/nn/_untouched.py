"""Conditions under which a module may fuse a submodule with others, without calling its ``forward``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

__all__ = ["has_no_gradient", "is_untouched"]


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Tell whether ``module`` is of exactly this class, with its own ``forward`` and without hooks."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    of_all = (
        module_hooks._global_forward_hooks,
        module_hooks._global_forward_pre_hooks,
        module_hooks._global_backward_hooks,
        module_hooks._global_backward_pre_hooks,
    )
    return type(module) is kind and "forward" not in vars(module) and not any(own) and not any(of_all)


def has_no_gradient(module: nn.Module, x: Tensor) -> bool:
    """Tell whether ``module`` is in evaluation mode and no gradient of ``module(x)`` can be requested.

    In training mode it can: a reentrant checkpoint computes twice, first without gradients.
    """
    if module.training:
        return False
    return not (torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters())))
