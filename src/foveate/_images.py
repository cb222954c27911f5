"""Any image as 8-bit RGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

__all__ = ["WHITE", "to_rgb"]

WHITE = "foveate_white"
"""Key in ``image.info`` of the white level of grayscale images with more than 8 bits; 65,535 if absent."""


def to_rgb(image: Image.Image, *, intensity_range: Sequence[float] | None = None) -> Image.Image:
    """Return ``image`` as 8-bit RGB, as it would look on a white page.

    Grayscale is repeated in the three channels. That of more than 8 bits is scaled by 255/w, with w the largest value
    that the file declares, else 65,535 (Pillow's own conversion cuts it off at 255, which leaves a white image). What
    is transparent shows white rather than whatever color happens to be stored under it. CMYK and YCbCr are converted
    by Pillow, which of 16-bit colors keeps the upper 8 bits.

    Args:
        image: The image.
        intensity_range: For grayscale of more than 8 bits, and floating point: what becomes black and what white,
            values beyond being cut off.

    Raises:
        ValueError: The pixels have no defined range (integers above what is declared, floating point) or no RGB
            equivalent.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if intensity_range is not None and (image.mode.startswith("I") or image.mode == "F"):
        black, white = intensity_range
        return _stretched(image, black, white)
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ValueError(
            "floating-point pixels have no defined range; save the image with 8 or 16 bits per channel, or say with "
            "intensity_range what is black and white"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    white = image.info.get(WHITE, 65535)
    low, high = values.min(), values.max()
    if low < 0 or high > white:
        raise ValueError(
            f"integer pixels from {low} to {high} have no defined range where 0 to {white} are expected; save the "
            "image with 8 or 16 bits per channel, or say with intensity_range what is black and white"
        )
    if white == 65535:
        gray, rest = np.divmod(values, 257)  # 65535/255
        gray += rest > 128  # the nearest
    else:
        gray = (values.astype(np.uint32) * 255 + white // 2) // white
    return Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def _stretched(image: Image.Image, black: float, white: float) -> Image.Image:
    values = (np.asarray(image, dtype=np.float32) - np.float32(black)) * np.float32(255 / (white - black))
    gray = np.nan_to_num(values, nan=0.0).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(gray).convert("RGB")
