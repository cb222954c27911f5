"""Versions, kernels and devices, for bug reports."""

from __future__ import annotations

import os

import torch

from foveate import functional as FA
from foveate._version import __version__
from foveate.benchmark.machine import describe_machine

__all__ = ["describe"]


def describe() -> str:
    """Return the versions, the kernels that were found, the threads and the devices, a line each."""
    machine = describe_machine(torch.device("cpu"))
    versions = {"foveate": __version__, "python": machine["python"], **machine["versions"]}
    kernels = FA.fused_kernels()
    switch = os.environ.get("FOVEATE_FUSED")
    off = f"; left out by FOVEATE_FUSED={switch}" if switch in ("0", "") else ""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines = {
        **versions,
        "system": machine["system"],
        "cpu": f"{machine['cpu']}, {machine['cores']} cores, {machine['instructions']}",
        "threads": str(machine["threads"]),
        "cpu kernels": kernels.get("cpu", f"none{off}"),
        "cuda kernels": kernels.get("cuda", f"none{off}"),
        "cuda": ", ".join(gpus) or "no device",
        "mps": "available" if torch.backends.mps.is_available() else "no device",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {what}" for name, what in lines.items())
