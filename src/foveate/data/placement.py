"""Mapping between pixels of an image and pixels of the tensor made of it in evaluation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from timm.data.transforms import ResizeKeepRatio

from foveate import _checks
from foveate.data.decoding import BadImage, UnreadableImageError
from foveate.data.fitting import fitted_size
from foveate.data.transforms import TransformConfig

__all__ = ["Placement", "check_resizable", "placement"]

MAX_RESIZED = 1 << 27
"""Most pixels that an image may have when its shorter side has been resized and the longer not yet cropped."""


class Placement(NamedTuple):
    """A resize and a crop: ``x_input = x_image · scale_x − left``, and the same for y.

    Coordinates are those of the edges of pixels: an image of width W reaches from 0 to W, and pixel ``j`` from ``j`` to
    ``j + 1``.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    input_size: tuple[int, int]
    """Height and width of the tensor."""

    def to_input(self, points: ArrayLike) -> NDArray[np.float64]:
        """Take points ``(…, 2)``, x and y in pixels of the image, to pixels of the tensor, also outside of it."""
        scale, corner = self._along_axes()
        return np.asarray(points, np.float64) * scale - corner

    def to_image(self, points: ArrayLike) -> NDArray[np.float64]:
        """Take points ``(…, 2)``, x and y in pixels of the tensor, to pixels of the image: the inverse."""
        scale, corner = self._along_axes()
        return (np.asarray(points, np.float64) + corner) / scale

    def box_to_input(self, box: ArrayLike) -> NDArray[np.float64]:
        """Take ``(x_min, y_min, x_max, y_max)`` to pixels of the tensor, and leave what was cropped away off.

        Of a box that was cropped away wholly, a side of length 0 on the tensor's edge remains.
        """
        height, width = self.input_size
        return self.to_input(np.reshape(box, (2, 2))).clip(0, (width, height)).reshape(4)

    def extent(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the pixels of the tensor that an image of height and width ``size`` fills; the rest is padding.

        They are left, top, right and bottom, the last two exclusive.
        """
        left, top, right, bottom = self.box_to_input((0, 0, size[1], size[0])).round().astype(int).tolist()
        return left, top, right, bottom

    def middle(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return row and column of the pixel of the tensor in the middle of what an image of ``size`` fills."""
        left, top, right, bottom = self.extent(size)
        return (top + bottom) // 2, (left + right) // 2

    def pixel(self, point: ArrayLike) -> tuple[int, int] | None:
        """Return row and column of the tensor's pixel in which ``point``, x and y in pixels of the image, ends up.

        Of a point that was cropped away, or never was in the image, there is none.
        """
        x, y = self.to_input(point).tolist()
        row, column = math.floor(y), math.floor(x)
        height, width = self.input_size
        return (row, column) if 0 <= row < height and 0 <= column < width else None

    def _along_axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array([self.scale_x, self.scale_y]), np.array([self.left, self.top], np.float64)


def placement(config: TransformConfig, image_size: tuple[int, int]) -> Placement:
    """Return where evaluation by ``config`` puts an image of ``image_size``, height and width.

    It is timm's: the shorter side is resized to ``img_size / crop_pct``, the longer in proportion up to rounding, and
    the center is cropped. With ``fit="squash"`` both sides are resized to that; with ``fit="pad"`` the whole image is
    in the upper left of the tensor.
    """
    height, width = _checks.pair("image_size", image_size)
    input_size = _checks.pair("img_size", config.img_size)
    if config.fit == "pad":
        new_height, new_width = fitted_size((height, width), input_size)
        return Placement(new_width / width, new_height / height, 0, 0, input_size)
    scaled = [math.floor(side / config.crop_pct) for side in input_size]
    if config.fit == "squash":
        new_height, new_width = scaled
    elif scaled[0] == scaled[1]:  # timm takes torchvision's Resize then, which cuts the longer side's fraction off
        short = min(height, width)
        new_height, new_width = (scaled[0] * side // short for side in (height, width))
    else:
        new_height, new_width = ResizeKeepRatio.get_params(torch.empty(1, height, width, device="meta"), scaled, 0.0)
    top, left = (
        round((new - kept) / 2) if new > kept else -((kept - new) // 2)  # torchvision's crop, and its black border
        for new, kept in zip((new_height, new_width), input_size, strict=True)
    )
    return Placement(new_width / width, new_height / height, left, top, input_size)


def check_resizable(config: TransformConfig, image_size: tuple[int, int], name: str) -> None:
    """Refuse an image so long that its shorter side cannot be resized; one of 1×50,000 pixels would take gigabytes.

    Raises:
        UnreadableImageError: ``name``, of height and width ``image_size``, is one.
    """
    height, width = image_size
    if max(image_size) < 8 * min(image_size):  # as nearly all are, which saves finding out where they would end up
        return
    place = placement(config, image_size)
    if width * place.scale_x * height * place.scale_y > MAX_RESIZED:
        reason = f"{width}×{height} pixels are too long and narrow for the network; crop it"
        raise UnreadableImageError(BadImage(name, reason))
