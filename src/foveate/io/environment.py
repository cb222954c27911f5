"""Versions and device of a computation, kept with its results."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["environment"]


def environment(device: torch.device) -> dict[str, str]:
    """Return the versions of what is installed of the software, and the device."""
    name = f"{platform.machine()} {'GPU' if device.type == 'mps' else 'CPU'}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else name
    versions = {}
    for package in ("foveate", "torch", "timm", "lightning"):
        with suppress(PackageNotFoundError):  # only training needs Lightning
            versions[package] = version(package)
    return {"python": platform.python_version(), **versions, "device": name}
