"""What the pixels of a mask and the objects of an image are described by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["VOID", "Objects"]

VOID = 255
"""The value of a mask's pixel that is of no class: it is neither learned nor scored."""


@dataclass(frozen=True)
class Objects:
    """The objects that an image shows.

    Attributes:
        boxes: ``(n, 4)`` float32, ``x_min, y_min, x_max, y_max`` in pixels, the last two exclusive.
        labels: ``(n,)`` int64, indices into the classes; the background is no class.
        ignored: ``(n,)`` bool: VOC's ``difficult`` and COCO's ``iscrowd``, neither learned nor scored.
        masks: ``(n, H, W)`` bool, the pixels of each object; None where they are not known.

    Raises:
        ValueError: A tensor has another type or another shape.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        number = len(self.labels)
        wanted = {"boxes": (torch.float32, (number, 4)), "labels": (torch.int64, (number,))}
        wanted["ignored"] = (torch.bool, (number,))
        if self.masks is not None:
            wanted["masks"] = (torch.bool, (number, *self.masks.shape[1:3]))
        for name, (dtype, shape) in wanted.items():
            tensor = getattr(self, name)
            if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tuple(tensor.shape) != shape:
                got = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ValueError(f"{name} of {number} objects must be {dtype} {shape}; got {got}")

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(
        cls, boxes: Sequence[Sequence[float]], labels: Sequence[int], *, ignored: Sequence[bool] | None = None
    ) -> Objects:
        """Make the tensors of numbers."""
        return cls(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor([False] * len(labels) if ignored is None else ignored, dtype=torch.bool),
        )
