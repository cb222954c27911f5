"""Detection: images with the boxes of their objects, checked against the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from foveate.data.decoding import BadImage, naming
from foveate.data.dense.objects import Objects

__all__ = ["BEYOND", "AnnotatedSample", "checked", "within"]

BEYOND = 1.0
"""By how many pixels a box may reach out of its image and is cut off there: tools that count pixels from 0 and from 1,
and rounding, differ by so much. One that reaches out further is an error."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class AnnotatedSample:
    """An image and the boxes that a file has of it.

    Attributes:
        path: The image file.
        source: The file that the boxes are from, and where in it.
        boxes: ``x_min, y_min, x_max, y_max``, the last two exclusive.
        labels: Indices of classes.
        ignored: Which objects are neither learned nor scored.
        names: What messages call the objects.
        size: Height and width of the image as the file says, if it does.
        masks: Makes the masks of the objects for an image of this height and width; None if there are none.
        bad: Why the image cannot be used, if that is known already.
    """

    path: str
    source: str
    boxes: Sequence[Box] = ()
    labels: Sequence[int] = ()
    ignored: Sequence[bool] = ()
    names: Sequence[str] = ()
    size: tuple[int, int] | None = None
    masks: Callable[[tuple[int, int]], np.ndarray] | None = None
    bad: BadImage | None = None

    @property
    def target_id(self) -> str:
        """A digest of the boxes and their labels."""
        objects = (
            [tuple(map(float, numbers)) for numbers in self.boxes],
            [*map(int, self.labels)],
            [*map(bool, self.ignored)],
        )
        return hashlib.sha256(repr(objects).encode()).hexdigest()[:16]

    def target(self, image: Image.Image) -> Objects:
        """Make the objects; raise an `UnreadableImageError` if the image or a box is not as the file says."""
        size = (image.height, image.width)
        with naming(self.source):
            if self.size is not None and self.size != size:
                raise ValueError(f"it says {self.size[1]}×{self.size[0]}, {self.path} is {size[1]}×{size[0]}")
            boxes = within(self.boxes, self.names, size)
            objects = Objects.of(boxes, self.labels, ignored=self.ignored)
            return objects if self.masks is None else replace(objects, masks=torch.from_numpy(self.masks(size)))


def checked(sample: AnnotatedSample) -> AnnotatedSample:
    """Return the sample, with ``bad`` if its boxes are not in an image of the size that its file says."""
    if sample.bad is not None or sample.size is None:
        return sample
    try:
        within(sample.boxes, sample.names, sample.size)
    except ValueError as error:
        return replace(sample, bad=BadImage(sample.source, str(error)))
    return sample


def within(boxes: Sequence[Box], names: Sequence[str], size: tuple[int, int]) -> list[Box]:
    """Return boxes cut off at the edges of an image, by at most `BEYOND` pixels; raise a `ValueError` for others."""
    height, width = size
    found = []
    for (x_min, y_min, x_max, y_max), name in zip(boxes, names, strict=True):
        shown = f"box ({x_min:g}, {y_min:g}) to ({x_max:g}, {y_max:g})"
        if not (x_min < x_max and y_min < y_max):
            raise ValueError(f"{name} has no area or is upside down: {shown}, the last exclusive")
        if min(x_min, y_min) < -BEYOND or x_max > width + BEYOND or y_max > height + BEYOND:
            raise ValueError(f"{name} reaches out of the image of {width}×{height} pixels: {shown}, the last exclusive")
        cut = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(width)), min(y_max, float(height)))
        if not (cut[0] < cut[2] and cut[1] < cut[3]):
            raise ValueError(
                f"{name} lies outside of the image of {width}×{height} pixels: {shown}, the last exclusive"
            )
        found.append(cut)
    return found
