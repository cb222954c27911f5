"""Devices by the names that options and arguments have for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from foveate import _checks

__all__ = ["DEVICES", "check_device", "on_device"]

DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device(device: str | torch.device, precision: str = "32-true") -> torch.device:
    """Resolve a device name.

    Args:
        device: One of `DEVICES`, or a device.
        precision: In which it is to compute.

    Raises:
        ValueError: There is none such, or it cannot compute in ``precision``.
    """
    name = device.type if isinstance(device, torch.device) else device
    _checks.one_of("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but PyTorch finds no CUDA device; use device=cpu or device=auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device=mps, but PyTorch finds no Apple GPU; use device=cpu or device=auto")
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    found = device if isinstance(device, torch.device) else torch.device(auto if device == "auto" else device)
    if precision == "16-mixed" and found.type != "cuda":
        raise ValueError(f"precision=16-mixed needs a CUDA GPU; on {found.type} use bf16-mixed or 32-true")
    return found


@contextmanager
def on_device(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Have ``network`` on ``device`` for the duration; it returns to where it was, whatever happens."""
    own = next(network.parameters()).device
    try:
        network.to(device)
        yield
    finally:
        network.to(own)
