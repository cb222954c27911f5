"""Position-wise attention: a gate with a value of its own at every position, the counterpart of CRAM."""

from __future__ import annotations

import torch

from foveate._shapes import Gate
from foveate.functional._precision import autocast_off, upcast

__all__ = ["positionwise_map"]


def positionwise_map(logits: Gate) -> Gate:
    """Return the gate ``A = σ(logits)`` in at least float32.

    Source: the counterpart that arXiv 2503.10875 compares with; CBAM's spatial gate (arXiv 1807.06521) is of
    the same kind.

    Examples:
        >>> FA.positionwise_map(torch.zeros(1, 1, 1, 3))
        tensor([[[[0.5000, 0.5000, 0.5000]]]])
    """
    if torch.jit.is_scripting():  # which does not know autocast
        return upcast(logits).sigmoid()
    else:  # noqa: RET505  # what comes after a `return` would be scripted
        with autocast_off(logits):
            return upcast(logits).sigmoid()
