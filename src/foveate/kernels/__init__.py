"""What `foveate.functional` computes, fused for one kind of device: C++ for CPUs, Triton for CUDA.

They are chosen by themselves where they exist; ``fused=False`` or the environment variable ``FOVEATE_FUSED=0`` leave
everything to PyTorch's operators, which stay the reference. Only `foveate.functional` imports this package.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["axial", "content", "found", "on_cpu"]

logger = logging.getLogger(__name__)


def axial(query: Tensor, value: Tensor, fused: bool | None) -> ModuleType | None:
    """Return the module whose ``axial_forward`` and ``axial_backward`` fit the device and dtypes, if any.

    Args:
        query: Queries of the pass.
        value: Values of the pass.
        fused: True demands kernels, False declines them, None takes them where there are any, unless
            ``FOVEATE_FUSED`` is 0.

    Raises:
        ValueError: ``fused`` is true and there are none.
    """
    return _demanded(_cpu(query, value, fused) or _cuda(query, value, fused), query, value, fused)


def content(query: Tensor, value: Tensor, fused: bool | None) -> ModuleType | None:
    """Return the module whose ``content_forward`` and ``content_backward`` fit, as `axial` does.

    On CUDA, content attention is a few products of matrices and needs no kernels: None, whatever ``fused`` is.
    """
    found = _cpu(query, value, fused)
    return found if value.is_cuda else _demanded(found, query, value, fused)


def on_cpu(fused: bool | None) -> ModuleType | None:
    """Return the kernels of the CPU, if there are any and ``fused`` does not decline them."""
    if not _wanted(fused):
        return None
    from foveate.kernels import cpu

    return cpu if cpu.library() is not None else None


def found(*devices: str) -> dict[str, str]:
    """Return the kernels that are taken by themselves: for ``cpu`` and ``cuda``, where there are any, what they are.

    Where a GPU is asked for, by name or by no name, it is looked at, which takes some of its memory.

    Examples:
        >>> set(FA.fused_kernels()) <= {"cpu", "cuda"}
        True
    """
    if not _wanted(None):
        return {}
    from foveate.kernels import cpu

    look: dict[str, Callable[[], str | None]] = {
        "cpu": cpu.found,
        "cuda": lambda: "Triton" if torch.cuda.is_available() and _triton_compiles() else None,
    }
    return {kind: what for kind in devices or look if (what := look[kind]()) is not None}


def _wanted(fused: bool | None) -> bool:
    return os.environ.get("FOVEATE_FUSED", "1") not in ("0", "") if fused is None else fused


def _cpu(query: Tensor, value: Tensor, fused: bool | None) -> ModuleType | None:
    there = value.device.type == "cpu" and value.is_floating_point() and query.numel() and value.numel()
    return on_cpu(fused) if there else None


def _cuda(query: Tensor, value: Tensor, fused: bool | None) -> ModuleType | None:
    if not _wanted(fused) or not value.is_cuda or not query.numel() or not value.numel():
        return None
    if not _triton_compiles():
        return None
    from foveate.kernels import axial_triton

    return axial_triton if axial_triton.supports(query, value) else None


@functools.cache
def _triton_compiles() -> bool:
    """Tell whether Triton is there and can build its launcher, for which it needs a C compiler and Python's headers."""
    if not importlib.util.find_spec("triton"):
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:  # of subprocesses, of files, of its own
        logger.warning("Triton compiles nothing here, so that PyTorch's operators are taken on CUDA: %s", error)
        return False
    return True


def _demanded(found: ModuleType | None, query: Tensor, value: Tensor, fused: bool | None) -> ModuleType | None:
    if fused and found is None and query.numel() and value.numel():
        raise ValueError(
            f"fused=True, but there are no kernels for {value.dtype} on {value.device}. On a CPU they need a C++ "
            f"compiler when foveate is installed; on CUDA, Triton and what it compiles with, and for the positional "
            f"passes half precision or TF32 (torch.backends.cuda.matmul.fp32_precision). fused=None takes what there is"
        )
    return found
