"""Any image as 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["to_rgb"]


def to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as 8-bit RGB, as it would look on a white page.

    Greyscale is repeated in the three channels, 16-bit greyscale is scaled by 255/65535 (Pillow's own conversion cuts
    it off at 255, which leaves a white image), and what is transparent shows white rather than whatever colour happens
    to be stored under it. CMYK and YCbCr are converted by Pillow, which of 16-bit colours keeps the upper 8 bits.

    Raises:
        ValueError: The pixels have no defined range (32-bit integers above 65,535, floating point) or no RGB
            equivalent.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save the image with 8 or 16 bits per channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ValueError(
            f"integer pixels from {low} to {high} have no defined range; save the image with 8 or 16 bits per channel"
        )
    grey, rest = np.divmod(values, 257)  # 65535/255
    grey += rest > 128  # the nearest
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
