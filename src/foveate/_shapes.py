"""Shapes in signatures, ``Float[Tensor, "batch channels"]``: jaxtyping's, which type checkers and tests alone need.

The names without brackets are for signatures that TorchScript reads, which knows tensors alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from torch import Tensor

__all__ = ["AnyShape", "Bool", "FeatureMap", "Float", "Gate", "Int", "Line", "Rectangles"]

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    AnyShape = Float[Tensor, " ..."]
    FeatureMap = Float[Tensor, "batch channels height width"]
    Gate = Float[Tensor, "batch 1 height width"]
    Line = Float[Tensor, " size"]
    Rectangles = Float[Tensor, "batch 5"]
else:
    Bool = Float = Int = Annotated
    AnyShape = FeatureMap = Gate = Line = Rectangles = Tensor
