"""Precision of computation: half precision is upcast to float32, and autocast kept out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["autocast_off", "autocasts", "not_float16", "upcast", "upcast_dtype"]


def upcast_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute maps, softmaxes and normalizers in: at least float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def upcast(x: Tensor) -> Tensor:
    """Return ``x`` in at least float32."""
    return x.to(upcast_dtype(x.dtype))


def autocast_off(x: Tensor) -> AbstractContextManager:
    """Return a context in which autocast leaves the operations on the device of ``x`` alone."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x.device) else nullcontext()


def autocasts(device: torch.device) -> bool:
    """Tell whether autocast is on for a device; there is none for ``meta``."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def not_float16(x: Tensor) -> Tensor:
    """Return ``x`` in float32 where autocast made it float16, whose range is small."""
    return x.float() if x.dtype == torch.float16 and autocasts(x.device) else x
