"""What the attention modules of a network attended to, read from their public maps in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveate import _checks
from foveate._networks import attention_modules
from foveate.explain.records import GATE, QUERIED, RECEIVED, AttentionRecord, inside, shares
from foveate.explain.untouched import untouched
from foveate.explain.weights import weights_of
from foveate.functional import rectangle_corners

__all__ = ["attention_records", "check_input", "check_logits", "observe"]


def attention_records(
    model: nn.Module,
    images: Tensor,
    *,
    query: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> list[AttentionRecord]:
    """Return what the attention modules of ``model`` attended to in ``images``, in the order in which they ran.

    One pass in evaluation mode without gradients; each module's ``attention_map`` is asked for the input that the
    module gets in it, or the weights that it consists of. The model is left exactly as it was, also when the pass
    fails. A network without attention gives an empty list. `foveate.explain` gives the prediction besides.

    Args:
        model: Any network; modules with an ``attention_map`` are found wherever they are, those of `foveate.insert`
            included.
        images: ``(B, C, H, W)`` as the network takes them (normalised), on its device.
        query: ``(row, column)`` of an image pixel: of N×N maps, show what the position that covers it attends to.
            Gates, which are the same for every position, do not change.
        names: Modules to ask; all if not given.

    Raises:
        ValueError: ``query`` lies outside of the images, a name is not that of an attention module, or a map that can
            only be formed as a whole would have more than `foveate.explain.weights.MAX_WEIGHTS` weights.
    """
    check_input(model, images)
    with untouched(model, images):
        return observe(model, images, query=query, names=names)[1]


def observe(
    model: nn.Module,
    images: Tensor,
    *,
    query: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Any, list[AttentionRecord]]:
    """Return the output of ``model`` and what `attention_records` returns, of one and the same pass."""
    if query is not None:
        query = inside(query, (images.shape[2], images.shape[3]))
    modules = attention_modules(model)
    for name in names or ():
        _checks.one_of("a name in names", name, modules)
    records: list[AttentionRecord] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: records.append(_record(name, module, inputs[0], images, query))

    handles = [modules[name].register_forward_pre_hook(watch(name)) for name in (modules if names is None else names)]
    try:
        with torch.no_grad():
            return model(images), records
    finally:
        for handle in handles:
            handle.remove()


def check_input(model: nn.Module, images: Tensor) -> None:
    """Raise a `ValueError` unless ``model`` is a module and ``images`` a batch ``(B, C, H, W)`` of at least one."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, as timm.create_model gives one; got {model!r:.60}")
    if not isinstance(images, Tensor) or images.ndim != 4 or not len(images):
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise ValueError(f"images must be a batch (B, C, H, W) of at least one; got {got}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating-point numbers, normalised for the network; got {images.dtype}")


def check_logits(model: nn.Module, output: Any, images: Tensor) -> Tensor:
    """Return ``output`` if it is that of a classifier for ``images``, ``(B, classes)``, else raise a `ValueError`."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images) or not output.shape[1]:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ValueError(
            f"{type(model).__name__} puts out {got} for {len(images)} images; a classifier puts out (B, classes). Of "
            "other networks `attention_records` shows the attention"
        )
    return output


def _record(name: str, module: Any, x: Tensor, images: Tensor, query: tuple[int, int] | None) -> AttentionRecord:
    """Ask ``module`` what it attends to in its input ``x``."""
    kind, size = type(module).__name__, (images.shape[2], images.shape[3])
    if not hasattr(module, "values"):  # a gate weighs positions, it does not mix them
        gate = _on_cpu(module.attention_map(x)[:, 0])
        if not hasattr(module, "rectangle"):
            return AttentionRecord(name, kind, gate, GATE, size)
        numbers = _on_cpu(module.rectangle(x))
        corners = (rectangle_corners(numbers) + 1) / 2 * numbers.new_tensor([size[1], size[0]])
        return AttentionRecord(name, kind, gate, GATE, size, rectangle=corners, numbers=numbers)
    weights = weights_of(name, module, x)
    height, width = weights.size
    radius = radius_image = None
    if hasattr(module, "radius"):
        radius = module.radius.item()
        radius_image = (radius * size[1] / width, radius * size[0] / height)
    if query is None:
        received, scale = weights.received(), RECEIVED
    else:
        position = query[0] * height // size[0], query[1] * width // size[1]
        received, scale = weights.taken_by(position).abs().sum(1), QUERIED
    return AttentionRecord(
        name,
        kind,
        shares(received),
        scale,
        size,
        query,
        radius=radius,
        radius_image=radius_image,
        weights=weights,
    )


def _on_cpu(x: Tensor) -> Tensor:
    return x.detach().float().cpu()
