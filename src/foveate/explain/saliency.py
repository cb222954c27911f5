"""One map per image for any classifier, in pixels of the image: what the scores are computed on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from foveate.explain.explanation import explain
from foveate.explain.maps import attention_records
from foveate.functional import rectangle_map
from foveate.models.inspection import attention_modules

__all__ = ["ENOUGH_POSITIONS", "Saliency", "saliency", "shown_module"]

ENOUGH_POSITIONS = 64
"""Of a network's attention modules the last that attends to at least so many positions is asked."""


@dataclass(frozen=True, eq=False)
class Saliency:
    """Where a network looked in each image of a batch, and what it said."""

    map: Tensor
    """``(B, H, W)`` at the size of the images, not negative, float32, on the CPU."""
    predicted: Tensor
    """``(B,)``: the most probable class, on the CPU."""
    name: str
    """Of the module that was asked."""
    kind: str
    """Its class, or ``GradCAM``."""
    rectangle: Tensor | None = None
    """The corners of CRAM's rectangle, as in `AttentionRecord`."""


def saliency(model: nn.Module, images: Tensor, *, name: str | None = None, method: str = "auto") -> Saliency:
    """Return one map per image.

    - Of rectangular attention: the gate of the predicted rectangle, drawn at the size of the image; its equation holds
      at any resolution, so that nothing is interpolated.
    - Of another gate (position-wise attention): the gate.
    - Of a module that weighs every position for every other (global self-attention, attention-augmented convolution,
      ExpAtt): the attention that each position receives from all, see `AttentionRecord`.
    - Of a network without attention: Grad-CAM of its last stage for the class that it predicts.

    All but the first are brought to the size of the images by bilinear interpolation, each value standing in the middle
    of the part of the image that it covers. No label is looked at. The model is left exactly as it was.

    Args:
        model: A classifier.
        images: ``(B, C, H, W)`` as it takes them (normalized), on its device.
        name: The module to ask. If not given, that of `shown_module`; for Grad-CAM, the last stage.
        method: As for `foveate.explain`: ``attention``, ``gradcam``, or ``auto``.

    Raises:
        ValueError: As `foveate.explain`.
    """
    if name is None and method != "gradcam" and attention_modules(model):
        name = shown_module(model, images)
    explanation = explain(model, images, names=None if name is None else [name], method=method)
    (record,) = explanation.records
    if explanation.logits is None:
        raise ValueError(f"{type(model).__name__} is no classifier: it has no class whose evidence could be scored")
    if record.numbers is not None and record.sharpness is not None:
        drawn = rectangle_map(record.numbers, *record.image_size, sharpness=record.sharpness)[:, 0]
    else:
        drawn = record.resampled("bilinear")
    return Saliency(drawn, explanation.logits.argmax(1), record.name, record.kind, record.rectangle)


def shown_module(model: nn.Module, images: Tensor) -> str:
    """Return the name of the last attention module that attends to at least `ENOUGH_POSITIONS` positions in ``images``.

    Where none does, that of the very last.

    Raises:
        ValueError: The network has no attention.
    """
    modules = attention_modules(model)
    if not modules:
        raise ValueError(f"{type(model).__name__} has no attention module to ask")
    for name in reversed(modules):  # from the deepest, whose maps are small
        if attention_records(model, images[:1], names=[name])[0].map[0].numel() >= ENOUGH_POSITIONS:
            return name
    return next(reversed(modules))
