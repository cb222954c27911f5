"""Private copies of networks, to look into them and leave them exactly as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foveate.models.inspection import evaluating, private_copy

__all__ = ["untouched"]


@contextmanager
def untouched(model: nn.Module, images: Tensor) -> Iterator[nn.Module]:
    """Yield a private copy of ``model`` in evaluation mode, see `foveate.models.inspection.private_copy`.

    ``model`` is not touched, so that several threads can look into one network at a time. The states of PyTorch's
    random generators, on the CPU and on a CUDA device of ``images``, are restored afterwards.
    """
    with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
        twin = private_copy(model)
        with evaluating(twin):
            yield twin
