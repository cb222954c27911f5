"""Whether a network uses its attention at all: what becomes of it without, and how much of the gradient goes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import _checks
from foveate._networks import attention_modules, gates
from foveate.explain.untouched import untouched
from foveate.nn import AttentionAugmentedConv2d, ExplicitAttention2d, GlobalSelfAttention2d

__all__ = ["attention_off", "gradient_shares", "parts_of"]


def parts_of(network: nn.Module) -> list[str]:
    """Return what `attention_off` can switch off: ``attention``; of GSA with both parts ``content`` and ``positional``.

    Of GSA with one part there is nothing: without it, its blocks put out nothing at all.
    """
    modules = attention_modules(network).values()
    if any(isinstance(module, GlobalSelfAttention2d) for module in modules):
        return ["content", "positional"] if any(getattr(module, "part", "") == "both" for module in modules) else []
    return ["attention"] if modules else []


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
    modules = [module for module in attention_modules(network).values() if getattr(module, "part", "both") == "both"]
    changes = [(module, *_change(module, part, network)) for module in modules]
    before = [dict(vars(module)) for module, _, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), held in zip(changes, before, strict=True):
            if name in held:
                setattr(module, name, held[name])
            else:
                delattr(module, name)


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
    parameters = [p for p in network.parameters() if p.requires_grad]
    with untouched(network, images), torch.enable_grad():
        loss = F.cross_entropy(network(images), labels)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    squares = {
        id(p): torch.zeros_like(p, device="cpu") if g is None else g.detach().cpu().double().square()
        for p, g in zip(parameters, gradients, strict=True)
    }
    total = sum(float(square.sum()) for square in squares.values())
    return {
        name: sum(_of_the_map(module, own, squares[id(p)]) for own, p in module.named_parameters() if id(p) in squares)
        / (total or 1.0)
        for name, module in attention_modules(network).items()
    }


def _of_the_map(module: nn.Module, name: str, square: Tensor) -> float:
    """Return the sum of what belongs to the map."""
    if isinstance(module, ExplicitAttention2d):
        return float(square.sum()) if name == "log_radius" else 0.0
    if isinstance(module, GlobalSelfAttention2d | AttentionAugmentedConv2d):
        if name == "qkv.weight":  # queries and keys come before the values
            values = module.dim_out if isinstance(module, GlobalSelfAttention2d) else module.dim_value
            return float(square[:-values].sum())
        return float(square.sum()) if name in ("rel_height", "rel_width") else 0.0
    return float(square.sum())


def _change(module: Any, part: str, network: nn.Module) -> tuple[str, Any]:
    """Return the attribute that switches off, and the value that it takes."""
    if isinstance(module, GlobalSelfAttention2d):
        return "part", "positional" if part == "content" else "content"
    if isinstance(module, ExplicitAttention2d):
        return "forward", lambda x: module.proj(module.values(x))
    if isinstance(module, AttentionAugmentedConv2d):
        return "forward", lambda x: module.combine(x, module.project(x)[2])
    if module in gates(network).values():
        return "forward", lambda x: x
    raise ValueError(f"it is not known what {type(module).__name__} is without its attention")
