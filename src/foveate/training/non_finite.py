"""Numbers that are infinite or NaN: which they are, once it is known that there are some."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["check_weights", "culprit"]


def check_weights(module: nn.Module) -> None:
    """Raise a `ValueError` that names the first parameter or buffer that is not finite, if there is one."""
    name = _first_not_finite(module.state_dict().items())
    if name is not None:
        raise ValueError(f"the weights to start from are not finite: {name!r} holds NaN or infinity; start from others")


def culprit(module: nn.Module, images: Tensor, losses: Sequence[float]) -> str:
    """Say what is not finite: the first of the images, the weights, a loss and a gradient that is not.

    Args:
        module: After the backward pass, and before the update.
        images: Of the last batch of the update.
        losses: Of its batches.
    """
    if not images.isfinite().all():
        return "the images hold NaN or infinity"
    name = _first_not_finite(module.named_parameters())
    if name is not None:
        return f"the weight {name!r} holds NaN or infinity"
    worst = next((loss for loss in losses if not math.isfinite(loss)), None)
    if worst is not None:
        return f"the training loss became {worst}"
    name = _first_not_finite((name, p.grad) for name, p in module.named_parameters() if p.grad is not None)
    return f"the gradient of {name!r} became infinite or NaN" if name else "the norm of the gradient became infinite"


def _first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor, or of the first part that this process has of one, that is not finite."""
    parts = ((name, tensor.to_local() if isinstance(tensor, DTensor) else tensor) for name, tensor in tensors)
    return next((name for name, part in parts if not part.isfinite().all()), None)
