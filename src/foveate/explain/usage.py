"""Whether a network uses its attention: its output without, and the share of the gradient that reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import _checks
from foveate._shapes import Float, Int
from foveate.explain.untouched import untouched
from foveate.models.inspection import attention_modules
from foveate.nn import SpatialAttention

__all__ = ["attention_off", "gradient_shares", "parts_of"]


def parts_of(network: nn.Module) -> list[str]:
    """Return what `attention_off` can switch off in ``network``: ``attention``, or the names of several parts.

    Examples:
        >>> foveate.explain.parts_of(timm.create_model("gsa_resnet_tiny"))
        ['content', 'positional']
    """
    return list(dict.fromkeys(part for module in attention_modules(network).values() for part in module.parts))


@contextmanager
def attention_off(network: nn.Module, part: str = "attention") -> Iterator[None]:
    """Switch the attention of ``network`` off for the duration, in every module that has one; its weights stay.

    - A gate (CRAM, position-wise) lets everything pass: ``A = 1``.
    - In explicit and augmented attention each position attends to itself alone: ``A = I``, for explicit attention the
      limit of a radius of zero.
    - Global self-attention loses the named ``part``, one of `parts_of`, and keeps the other.

    The drop in accuracy is what a trained network owes to its attention; what it would have learned without is another
    question, which only training answers.

    Examples:
        >>> network, x = timm.create_model("cram_resnet_tiny").eval(), torch.randn(1, 3, 32, 32)
        >>> with foveate.explain.attention_off(network):
        ...     without = network(x)
        >>> torch.equal(without, network(x))
        False
    """
    _checks.one_of("part", part, parts_of(network))
    if isinstance(network, nn.DataParallel) and len(network.device_ids) > 1:
        raise ValueError("attention_off: the copies that DataParallel makes would not see it; give network.module")
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


def gradient_shares(
    network: nn.Module, images: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"]
) -> dict[str, float]:
    """Return for each attention module the share of its map in the squared norm of the gradient of the loss.

    The map's parameters are all of a gate's, the radius of explicit attention, and queries, keys and tables of the
    others. A share of zero means that nothing is learned there; what is frozen counts for nothing, unless all is. The
    loss is the cross-entropy of ``images`` with ``labels``, in evaluation mode; the network and its gradients are left
    as they were.

    Examples:
        >>> network = timm.create_model("expatt_resnet_tiny", num_classes=10)
        >>> list(foveate.explain.gradient_shares(network, torch.randn(2, 3, 32, 32), torch.tensor([3, 7])))[0]
        'layer2.0.conv2.attention'
    """
    with torch.inference_mode(False), untouched(network, images) as twin, torch.enable_grad():
        images, labels = (x.clone() if x.is_inference() else x for x in (images, labels))
        parameters = [p for p in twin.parameters() if p.requires_grad]
        frozen = [] if parameters else [p for p in twin.parameters() if p.is_floating_point()]
        try:
            for p in frozen:
                p.requires_grad_(True)
            parameters += frozen
            loss = F.cross_entropy(twin(images), labels)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        finally:
            for p in frozen:  # those of a subclass of Parameter are the original's own
                p.requires_grad_(False)
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
