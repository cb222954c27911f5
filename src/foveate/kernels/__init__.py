"""What `foveate.functional` computes, fused for one kind of device: C++ for CPUs, Triton for CUDA.

They are chosen by themselves where they exist; ``fused=False`` or the environment variable ``FOVEATE_FUSED=0`` leave
everything to PyTorch's operators, which stay the reference. Only `foveate.functional` imports this package.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["axial", "content"]


def axial(like: Tensor, fused: bool | None) -> ModuleType | None:
    """Return the module whose ``axial_forward`` and ``axial_backward`` fit ``like``'s device and dtype, if any.

    Args:
        like: A tensor of the pass.
        fused: True demands kernels, False declines them, None takes them where there are any, unless
            ``FOVEATE_FUSED`` is 0.

    Raises:
        ValueError: ``fused`` is true and there are none.
    """
    return _demanded(_cpu(like, fused) or _cuda(like, fused), like, fused)


def content(like: Tensor, fused: bool | None) -> ModuleType | None:
    """Return the module whose ``content_forward`` and ``content_backward`` fit, as `axial` does.

    On CUDA, content attention is a few products of matrices and no kernels are needed: None, whatever ``fused`` is.
    """
    found = _cpu(like, fused)
    return found if like.is_cuda else _demanded(found, like, fused)


def _wanted(fused: bool | None) -> bool:
    return os.environ.get("FOVEATE_FUSED", "1") not in ("0", "") if fused is None else fused


def _cpu(like: Tensor, fused: bool | None) -> ModuleType | None:
    if not _wanted(fused) or like.device.type != "cpu":
        return None
    from foveate.kernels import cpu

    return cpu if like.numel() and cpu.library() is not None else None


def _cuda(like: Tensor, fused: bool | None) -> ModuleType | None:
    if not _wanted(fused) or not like.is_cuda or like.dtype == torch.float64 or not like.numel():
        return None
    return importlib.import_module("foveate.kernels.axial_triton") if importlib.util.find_spec("triton") else None


def _demanded(found: ModuleType | None, like: Tensor, fused: bool | None) -> ModuleType | None:
    if fused and found is None and like.numel():
        raise ValueError(
            f"fused=True, but there are no kernels for {like.dtype} on {like.device}. On a CPU they need a C++ "
            f"compiler when foveate is installed; on CUDA, Triton and at most float32. fused=None takes what there is"
        )
    return found
