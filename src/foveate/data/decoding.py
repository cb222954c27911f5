"""From a file to an RGB image, or to a plain statement of why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["BadImage", "UnreadableImageError", "naming", "read_image", "to_rgb"]


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class UnreadableImageError(ValueError):
    """An image of a data set could not be read; ``bad`` names it."""

    def __init__(self, bad: BadImage) -> None:
        super().__init__(f"cannot read image {bad}")
        self.bad = bad


def read_image(path: str | Path) -> Image.Image:
    """Decode the file at ``path`` completely and return it as RGB.

    As usual in image classification, an orientation tag is not applied and only the first frame is read.

    Raises:
        UnreadableImageError: The file is missing, damaged, truncated or no image.
    """
    with naming(path), Image.open(path) as image:
        return to_rgb(image)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while the image at ``path`` is read into an `UnreadableImageError` that names it."""
    try:
        yield
    except Exception as error:  # on damaged bytes Pillow's decoders raise nearly anything, from OSError to struct.error
        raise UnreadableImageError(BadImage(str(path), _reason(error, Path(path)))) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as 8-bit RGB, as it would look on a white page.

    Greyscale is repeated in the three channels, 16-bit greyscale is scaled by 255/65535 (Pillow's own conversion cuts
    it off at 255, which leaves a white image), and what is transparent shows white rather than whatever colour happens
    to be stored under it. CMYK and YCbCr are converted by Pillow.

    Raises:
        ValueError: The pixels have no defined range (32-bit integers above 65,535, floating point) or no RGB
            equivalent.
    """
    if image.mode == "RGB":
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
    values = np.asarray(image).astype(np.int64)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ValueError(
            f"integer pixels from {low} to {high} have no defined range; save the image with 8 or 16 bits per channel"
        )
    return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")  # 257 = 65535/255


def _reason(error: Exception, path: Path) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "this is not an image in a format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
