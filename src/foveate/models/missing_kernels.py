"""Warning where attention computes without its compiled kernels."""

from __future__ import annotations

import functools
import logging
import os

import torch
from torch import nn

from foveate import functional as FA

__all__ = ["warn_of_missing_kernels"]

logger = logging.getLogger(__name__)

NO_KERNELS = (
    "no compiled kernels for this CPU were found, or none from the sources that are here, so that GSA runs on "
    "PyTorch's operators, with the same results but more slowly; reinstall foveate where there is a C++ compiler with "
    "OpenMP, which Apple's has not (pip install -v says what is wrong)"
)


def warn_of_missing_kernels(device: torch.device, network: nn.Module | None = None) -> None:
    """Warn once per process that ``network`` (or any) computes without the compiled kernels for attention."""
    off = os.environ.get("FOVEATE_FUSED", "1") in ("0", "")
    wants = network is None or any(getattr(module, "fused", False) is None for module in network.modules())
    if device.type == "cpu" and wants and not off and not FA.fused_kernels("cpu"):
        _warn_once()


@functools.cache
def _warn_once() -> None:
    logger.warning("%s", NO_KERNELS)
