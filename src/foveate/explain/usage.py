"""Whether a network uses its attention at all: what becomes of it without, and how much of the gradient goes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import _checks
from foveate.explain.untouched import untouched
from foveate.models.inspection import attention_modules
from foveate.nn import SpatialAttention

__all__ = ["attention_off", "gradient_shares", "parts_of"]


def parts_of(network: nn.Module) -> list[str]:
    """Return what `attention_off` can switch off in ``network``: ``attention``, or the names of several parts."""
    return list(dict.fromkeys(part for module in attention_modules(network).values() for part in module.parts))


@contextmanager
def attention_off(network: nn.Module, part: str = "attention") -> Iterator[None]:
    """Switch the attention of ``network`` off for the duration, in every module that has one; its weights stay.

    - A gate (CRAM, position-wise) lets everything pass: ``A = 1``.
    - In explicit and augmented attention each position attends to itself alone: ``A = I``, for explicit attention the
      limit of a radius of zero.
    - Global self-attention loses the ``part`` that is named, and is left with the other.

    What a trained network loses by it, it owes to its attention. What it would have learned without is another
    question, which only training answers.

    Args:
        network: The network.
        part: What to switch off, one of `parts_of`.

    Raises:
        ValueError: There is nothing of that name in ``network``, or it is not known what one of its modules is
            without its attention.
    """
    _checks.one_of("part", part, parts_of(network))
    modules = [module for module in attention_modules(network).values() if part in module.parts]
    before = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = partial(_off, module, part)
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            if forward is not None:
                module.forward = forward
            else:
                vars(module).pop("forward", None)


def _off(module: SpatialAttention, part: str, x: Tensor) -> Tensor:
    return module.forward_without(x, part)


def gradient_shares(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return for each attention module the part that its map has in the squared norm of the gradient of the loss.

    The map's parameters are all of a gate's, the radius of explicit attention, and queries, keys and tables of the
    others. A part of zero means that nothing is learned there. The loss is the cross-entropy, in evaluation mode; the
    network and its gradients are left as they were.

    Args:
        network: The network.
        images: ``(B, C, H, W)``, as the network takes them.
        labels: ``(B,)``, the classes.
    """
    with untouched(network, images) as twin, torch.enable_grad():
        parameters = [p for p in twin.parameters() if p.requires_grad]
        loss = F.cross_entropy(twin(images), labels)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        modules = attention_modules(twin)
    squares = {
        id(p): torch.zeros_like(p, device="cpu") if g is None else g.detach().cpu().double().square()
        for p, g in zip(parameters, gradients, strict=True)
    }
    total = sum(float(square.sum()) for square in squares.values()) or 1.0
    shares = {}
    for name, module in modules.items():
        own = dict(module.named_parameters())
        rows = [(squares.get(id(own[part])), which) for part, which in module.map_parameters().items() if part in own]
        shares[name] = sum(float(square[which].sum()) for square, which in rows if square is not None) / total
    return shares
