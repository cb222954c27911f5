"""Fused computation of all that follows the projection of `GlobalSelfAttention2d`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveate.functional._global_self import fits, global_self_inference
from foveate.functional._global_self_training import fits_training, global_self_training
from foveate.functional.relative import relative_window
from foveate.nn._untouched import has_no_gradient, is_untouched

if TYPE_CHECKING:
    from foveate.nn.global_self import GlobalSelfAttention2d

__all__ = ["attend_fused"]


def attend_fused(module: GlobalSelfAttention2d, qkv: Tensor) -> tuple[Tensor, bool] | None:
    """Return the output and whether it is pooled; None where there are no kernels for all of it."""
    if module.normalize_queries or module.axial_content:  # ablations that no kernel knows
        return None
    if isinstance(qkv, torch.fx.Proxy):  # graphs hold the parts, the normalization among them
        return None
    if _may_fold(module, qkv) and fits(qkv, module.fused, *module.parameters()):
        return _at_once(module, qkv), True
    if fits_training(qkv, module.fused, *module.parameters()) and _may_join(module, qkv):
        return _in_training(module, qkv), False
    return None


def _at_once(module: GlobalSelfAttention2d, qkv: Tensor) -> Tensor:
    """Compute all of it in one operator, the normalization folded."""
    norm = module.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
    down, along = (relative_window(table, size) for table, size in _tables(module, qkv))
    return global_self_inference(qkv, (down, along), statistics, module.num_heads, module.dim_key, module.stride)


def _in_training(module: GlobalSelfAttention2d, qkv: Tensor) -> Tensor:
    """Compute it in one node of the graph, the normalization within, and leave the pooling."""
    norm = module.norm
    assert isinstance(norm, nn.BatchNorm2d)
    given, affine = None, (norm.weight, norm.bias)
    if not norm.training and norm.running_mean is not None and norm.running_var is not None:
        given = norm.running_mean.to(qkv.dtype, copy=True), norm.running_var.to(qkv.dtype, copy=True)
    down, along = (relative_window(table.to(qkv.dtype), size) for table, size in _tables(module, qkv))
    out, mean, variance = global_self_training(
        qkv, (down, along), affine, given, norm.eps, module.widths, module.num_heads
    )
    if given is None:
        _track(norm, mean, variance, qkv.numel() // qkv.shape[1])
    return out


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Bring statistics of a batch to the running ones, as `torch.nn.BatchNorm2d` does."""
    if not (norm.training and norm.track_running_stats):
        return
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # a mean over all batches
            momentum = 1 / float(norm.num_batches_tracked)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum or 0.0)
        norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), momentum or 0.0)


def _tables(module: GlobalSelfAttention2d, qkv: Tensor) -> zip[tuple[Tensor, int]]:
    return zip((module.rel_height, module.rel_width), qkv.shape[2:], strict=True)


def _may_fold(module: GlobalSelfAttention2d, qkv: Tensor) -> bool:
    """Tell whether the normalization is a fixed scale and shift that nobody observes."""
    norm = module.norm
    return (
        has_no_gradient(module, qkv)
        and is_untouched(norm, nn.BatchNorm2d)
        and not norm.training
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def _may_join(module: GlobalSelfAttention2d, qkv: Tensor) -> bool:
    """Tell whether the normalization is one that nobody observes, and all is of the sizes that the kernels trust.

    What is not is for PyTorch's operators, which say what does not fit.
    """
    norm = module.norm
    if not is_untouched(norm, nn.BatchNorm2d) or qkv.numel() == qkv.shape[1]:  # a single pixel has no variance
        return False
    running = norm.running_mean, norm.running_var
    parts = [x for x in (norm.weight, norm.bias, *running) if x is not None]
    return (
        (running[0] is None) == (running[1] is None)
        and all(x.dtype == qkv.dtype for x in (norm.weight, norm.bias) if x is not None)
        and all(x.shape == (module.dim_out,) and x.device == qkv.device for x in parts)
        and all(x.shape[1:] == (module.dim_key // module.num_heads,) for x in (module.rel_height, module.rel_width))
    )
