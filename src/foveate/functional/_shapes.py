"""Shapes in signatures that TorchScript reads: it knows no jaxtyping, so they are plain tensors at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

__all__ = ["AnyShape", "FeatureMap", "Gate", "Line", "Rectangles"]

if TYPE_CHECKING:
    from jaxtyping import Float

    AnyShape = Float[Tensor, " ..."]
    FeatureMap = Float[Tensor, "batch channels height width"]
    Gate = Float[Tensor, "batch 1 height width"]
    Line = Float[Tensor, " size"]
    Rectangles = Float[Tensor, "batch 5"]
else:
    AnyShape = FeatureMap = Gate = Line = Rectangles = Tensor
