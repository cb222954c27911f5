"""What the attention modules of a network attended to, read from their public maps in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveate import _checks
from foveate._shapes import Float
from foveate.explain.asked import inside
from foveate.explain.records import GATE, QUERIED, RECEIVED, AttentionRecord, position_of, shares
from foveate.explain.untouched import untouched
from foveate.functional import rectangle_corners
from foveate.models.dense import seen_size
from foveate.models.inspection import attention_modules
from foveate.nn import SpatialAttention

__all__ = ["attention_records", "check_input", "logits_of", "observe"]


def attention_records(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    *,
    query: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> list[AttentionRecord]:
    """Return what the attention modules of ``model`` attended to in ``images``, in the order in which they ran.

    One pass of a private copy, eagerly, in evaluation mode and without gradients. A network without attention gives an
    empty list. `foveate.explain` gives the prediction as well, and describes the arguments.

    Raises:
        ValueError: ``query`` lies outside of the images, a name is not that of an attention module, or a map that can
            only be formed as a whole would have more than `foveate.nn.weights.MAX_WEIGHTS` weights.

    Examples:
        >>> network = timm.create_model("expatt_resnet_tiny")
        >>> records = foveate.explain.attention_records(network, torch.randn(1, 3, 32, 32), query=(5, 9))
        >>> [(record.name, *record.map.shape) for record in records][:1]
        [('layer2.0.conv2.attention', 1, 16, 16)]
    """
    check_input(model, images)
    with untouched(model, images) as twin:
        return observe(twin, images, query=query, names=names)[1]


def observe(
    model: nn.Module,
    images: Tensor,
    *,
    query: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Any, list[AttentionRecord]]:
    """Return the output of ``model`` and what `attention_records` returns, both of one pass.

    The hooks stay on ``model``: pass a private copy.
    """
    if query is not None:
        query = inside(query, (images.shape[2], images.shape[3]))
    size = seen_size(model, (images.shape[2], images.shape[3]))
    modules = attention_modules(model)
    for name in names or ():
        _checks.one_of("a name in names", name, modules)
    records: list[AttentionRecord] = []

    def watch(name: str) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], None]:
        def record(module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            x = inputs[0] if inputs else next(iter(keywords.values()))
            records.append(_record(name, module, x, size, query))

        return record

    for name in modules if names is None else names:
        modules[name].register_forward_pre_hook(watch(name), with_kwargs=True)
    with torch.no_grad():
        return model(images), records


def check_input(model: nn.Module, images: Tensor) -> None:
    """Raise a `ValueError` unless ``model`` is a module and ``images`` a batch ``(B, C, H, W)`` of at least one."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, as timm.create_model gives one; got {model!r:.60}")
    if not isinstance(images, Tensor) or images.ndim != 4 or not len(images):
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise ValueError(f"images must be a batch (B, C, H, W) of at least one; got {got}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating-point numbers, normalized for the network; got {images.dtype}")


def logits_of(output: Any, images: Tensor) -> Tensor | None:
    """Return ``output`` if it is that of a classifier for ``images``, ``(B, classes)``; else None."""
    classifies = isinstance(output, Tensor) and output.ndim == 2 and len(output) == len(images) and output.shape[1] > 0
    return output if classifies else None


def _record(
    name: str, module: SpatialAttention, x: Tensor, size: tuple[int, int], query: tuple[int, int] | None
) -> AttentionRecord:
    """Record what ``module`` attends to in its input ``x``, which spans height and width ``size``."""
    try:
        seen = module.observe(x)
    except ValueError as error:
        raise ValueError(f"{name or type(module).__name__}: {error}") from error
    record = partial(
        AttentionRecord,
        name,
        type(module).__name__,
        image_size=size,
        title=module.title or type(module).__name__,
        description=module.description,
        depends_on_content=module.depends_on_content,
    )
    if seen.weights is None:
        assert seen.gate is not None
        corners = None
        if seen.rectangle is not None:
            corners = (rectangle_corners(seen.rectangle) + 1) / 2 * seen.rectangle.new_tensor([size[1], size[0]])
        return record(seen.gate, GATE, rectangle=corners, numbers=seen.rectangle, sharpness=seen.sharpness)
    height, width = seen.weights.size
    radius_image = None
    if seen.radius is not None:
        radius_image = (seen.radius * size[1] / width, seen.radius * size[0] / height)
    if query is None:
        received, scale = seen.weights.received(), RECEIVED
    else:
        position = position_of(query, size, (height, width))
        received, scale = seen.weights.taken_by(position).abs().sum(1), QUERIED
    return record(
        shares(received),
        scale,
        query=query,
        radius=seen.radius,
        radius_image=radius_image,
        weights=seen.weights,
    )
