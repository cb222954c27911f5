"""One map per image for any classifier, in pixels of the image: the input of the localization scores."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from foveate._shapes import Float
from foveate.explain.explanation import explain
from foveate.explain.maps import attention_records
from foveate.functional import rectangle_map
from foveate.models.inspection import attention_modules

__all__ = ["ENOUGH_POSITIONS", "Saliency", "saliency", "shown_module"]

ENOUGH_POSITIONS = 64
"""Fewest positions of the attention module whose map is shown."""


@dataclass(frozen=True, eq=False)
class Saliency:
    """Where a network looked in each image of a batch, and its prediction.

    Examples:
        >>> network = timm.create_model("positionwise_resnet_tiny")
        >>> found = foveate.explain.saliency(network, torch.randn(2, 3, 32, 32))
        >>> found.map.shape, found.predicted.shape, found.kind
        (torch.Size([2, 32, 32]), torch.Size([2]), 'PositionwiseAttention2d')
    """

    map: Tensor
    """``(B, H, W)`` at the size of the images, not negative, float32, on the CPU."""
    predicted: Tensor
    """``(B,)``: the most probable class, on the CPU."""
    name: str
    """Name of the module whose map this is."""
    kind: str
    """Its class, or ``GradCAM``."""
    rectangle: Tensor | None = None
    """The corners of CRAM's rectangle, as in `AttentionRecord`."""


def saliency(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    *,
    name: str | None = None,
    method: str = "auto",
) -> Saliency:
    """Return one map per image; arguments are those of `foveate.explain`.

    - Of rectangular attention: the gate of the predicted rectangle, drawn at the size of the image; its equation holds
      at any resolution, so that nothing is interpolated.
    - Of another gate (position-wise attention): the gate.
    - Of a module that weighs every position for every other (global self-attention, attention-augmented convolution,
      ExpAtt): the attention that each position receives from all, see `AttentionRecord`.
    - Of a network without attention: Grad-CAM of its last stage for the class that it predicts.

    All but the first are brought to the size of the images by bilinear interpolation, each value in the middle of the
    part of the image that it covers. Labels are not used. The module is ``name``, by default that of `shown_module`.

    Examples:
        >>> network = timm.create_model("conv_resnet_tiny")
        >>> foveate.explain.saliency(network, torch.randn(1, 3, 32, 32)).kind
        'GradCAM'
    """
    if name is None and method != "gradcam" and attention_modules(model):
        name = shown_module(model, images)
    explanation = explain(model, images, names=None if name is None else [name], method=method)
    if not explanation.records:
        raise ValueError(f"{name!r} is not called in evaluation; name another module")
    record = explanation.records[-1]  # of a module that is called several times, the last call
    if explanation.logits is None:
        raise ValueError(f"{type(model).__name__} is no classifier: it has no class whose evidence could be scored")
    if record.numbers is not None and record.sharpness is not None:
        drawn = rectangle_map(record.numbers, *record.image_size, sharpness=record.sharpness)[:, 0]
    else:
        drawn = record.resampled("bilinear")
    return Saliency(drawn, explanation.logits.argmax(1), record.name, record.kind, record.rectangle)


def shown_module(model: nn.Module, images: Float[Tensor, "batch channels height width"]) -> str:
    """Return the name of the last attention module with at least `ENOUGH_POSITIONS` positions, else of the very last.

    Examples:
        >>> foveate.explain.shown_module(timm.create_model("gsa_resnet_tiny"), torch.randn(1, 3, 32, 32))
        'layer4.0.conv2'
    """
    modules = attention_modules(model)
    if not modules:
        raise ValueError(f"{type(model).__name__} has no attention module to ask")
    last = ""
    for name in reversed(modules):  # from the deepest, whose maps are small
        records = attention_records(model, images[:1], names=[name])  # none of what is called in training alone
        if records and records[0].map[0].numel() >= ENOUGH_POSITIONS:
            return name
        last = last or (name if records else "")
    if not last:
        raise ValueError(f"{type(model).__name__} calls none of its attention modules in evaluation")
    return last
