"""What is installed and what it computes with: for reports of faults, and to see why something is slow."""

from __future__ import annotations

import functools
import logging
import os

import torch
from torch import nn

from foveate import functional as FA
from foveate._version import __version__
from foveate.benchmark.machine import describe_machine

__all__ = ["describe", "warn_of_missing_kernels"]

logger = logging.getLogger(__name__)

NO_KERNELS = (
    "no compiled kernels for this CPU were found, so that GSA runs on PyTorch's operators, with the same results but "
    "more slowly; reinstall foveate where there is a C++ compiler (pip install -v says what is wrong)"
)


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


def warn_of_missing_kernels(device: torch.device, network: nn.Module | None = None) -> None:
    """Say, once in a process, that ``network`` (or any) computes without the kernels that there are for attention."""
    off = os.environ.get("FOVEATE_FUSED", "1") in ("0", "")
    wants = network is None or any(getattr(module, "fused", False) is None for module in network.modules())
    if device.type == "cpu" and wants and not off and "cpu" not in FA.fused_kernels():
        _warn_once()


@functools.cache
def _warn_once() -> None:
    logger.warning("%s", NO_KERNELS)
