"""Whether an exported network computes what the network computes, also at sizes other than that of the export."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["TOLERANCE", "Deviation", "check_deviation", "deviation", "shapes_to_check"]

TOLERANCE = 1e-4
"""Largest relative error of the logits of an export, ‖exported − eager‖ / ‖eager‖."""

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Deviation:
    """Deviation of two computations of the logits of some images.

    Attributes:
        shape: ``(B, C, H, W)`` of the images.
        error: ``‖other − eager‖ / ‖eager‖``; infinite where the shapes differ or a number is not finite.
        same_top1: Number of images, of segmentation of pixels, with the same largest logit.
    """

    shape: Shape
    error: float
    same_top1: int


def deviation(model: nn.Module, other: Callable[[Tensor], Tensor], images: Tensor) -> Deviation:
    """Compare the logits of ``images`` by ``model``, in evaluation mode, with those by ``other``."""
    with torch.no_grad():
        wanted, got = model(images), other(images)
    batch, channels, height, width = images.shape
    shape = (batch, channels, height, width)
    if got.shape != wanted.shape or not (got.isfinite().all() and wanted.isfinite().all()):
        return Deviation(shape, float("inf"), 0)
    error = (got.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-12)
    return Deviation(shape, error.item(), int((got.argmax(1) == wanted.argmax(1)).sum()))


def shapes_to_check(
    image: tuple[int, int, int], *, batch: int | None = None, smallest: int | None = None
) -> list[Shape]:
    """Return shapes of images at which to compare an export, other than that of its tracing where sizes are open.

    They are the size of ``image``, ``(channels, height, width)``, with several batch sizes unless ``batch`` is fixed,
    and, where sizes are open, the ``smallest`` side, unequal and odd ones.
    """
    channels, *size = image
    sizes = [size] * (1 if batch is not None else 3)
    if smallest is not None:
        height, width = (max(side, smallest) for side in size)
        sizes += [[smallest, smallest], [height + 1, width], [height, 5 * width // 4 | 1], [smallest, 2 * width]]
    batches = [batch] if batch is not None else [1, 3, 5]
    return [(number, channels, h, w) for number, (h, w) in zip(itertools.cycle(batches), sizes, strict=False)]


def check_deviation(
    model: nn.Module, other: Callable[[Tensor], Tensor], shapes: Sequence[Shape], *, seed: int = 0
) -> list[Deviation]:
    """Compare ``model`` with ``other`` on random images of several shapes.

    Raises:
        ValueError: They differ by more than `TOLERANCE`, or ``other`` does not take images of a shape.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape in shapes:
        size = "×".join(map(str, shape))
        images = torch.rand(shape, generator=generator)
        try:
            found.append(deviation(model, other, images))
        except Exception as error:  # onnxruntime has its own kinds
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"what was exported does not take images of {size}: {reason}") from error
        if not found[-1].error <= TOLERANCE:
            raise ValueError(
                f"what was exported differs from the network by {found[-1].error:.1e} (relative) for images of {size}, "
                f"where at most {TOLERANCE:g} is rounding; nothing was written"
            )
    return found
