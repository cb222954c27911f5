"""Roofline of the machine, as measured: how fast it multiplies matrices, and how fast it copies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from foveate.benchmark.interleaving import interleaved

__all__ = ["Roofline", "measure_roofline"]

PRODUCT = {"cpu": (6144, 512), "cuda": (8192, 8192), "mps": (4096, 4096)}
"""Rows of the left matrix, and its columns, which are both sides of the right one. On CPUs it is what libraries are
fastest at: the right one stays in the caches."""
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30, "mps": 2**28}
"""Far more than caches hold."""
ROUNDS, WARMUP = 15, 2


@dataclass(frozen=True)
class Roofline:
    """Peak rates of a machine, each the best of several rounds."""

    flops_per_second: float
    """Of a product of two matrices, 1 multiply-add = 2 FLOPs; of the faster of the two libraries that PyTorch has for
    it, that for matrices and that for (1×1) convolutions."""
    bytes_per_second: float
    """Of a copy of a large tensor, bytes read and bytes written."""


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Measure the roofline with the threads that PyTorch is set to."""
    rows, side = PRODUCT[device.type]
    left, right = (torch.randn(n, side, device=device, dtype=dtype) for n in (rows, side))
    product = torch.empty_like(left)
    pixels = left.view(-1, 32, 32, side).permute(0, 3, 1, 2)  # in channels_last
    source = torch.zeros(COPY_BYTES[device.type] // dtype.itemsize, device=device, dtype=dtype)
    target = torch.ones_like(source)
    measured = interleaved(
        {
            "product": lambda: torch.mm(left, right, out=product),
            "convolution": lambda: F.conv2d(pixels, right[:, :, None, None]),
            "copy": lambda: target.copy_(source),
        },
        rounds=ROUNDS,
        warmup=WARMUP,
        device=device,
    )
    fastest = {name: min(sample.seconds) for name, sample in measured.items()}
    product_seconds = min(fastest["product"], fastest["convolution"])
    return Roofline(2 * rows * side**2 / product_seconds, 2 * source.nbytes / fastest["copy"])
