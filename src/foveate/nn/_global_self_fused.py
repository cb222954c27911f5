"""Fused computation of all that follows the projection of `GlobalSelfAttention2d`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveate.functional._global_self import fits, global_self_inference
from foveate.functional._global_self_training import add_rows, columns_and_content, fits_training
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
    if fits_training(qkv, module.fused, *module.parameters()):
        return _before_and_after(module, qkv), False
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


def _before_and_after(module: GlobalSelfAttention2d, qkv: Tensor) -> Tensor:
    """Compute it in two nodes of the graph, before and after the normalization, and leave the pooling."""
    down, along = (relative_window(table.to(qkv.dtype), size) for table, size in _tables(module, qkv))
    query, hidden, content = columns_and_content(qkv, down, module.widths, module.num_heads)
    return add_rows(query, module.norm(hidden), along, content)


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
    )
