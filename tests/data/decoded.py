"""Small pictures, and how they are read, for the tests of decoding."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.data.decoding import read_image


def ramp() -> Image.Image:
    """Return 5×7 pixels of grey from 0 to 238."""
    return Image.fromarray((np.arange(35, dtype=np.uint8) * 7).reshape(7, 5))


def coloured() -> Image.Image:
    return Image.merge("RGB", (ramp(), ramp().point(lambda v: 255 - v), ramp().point(lambda v: v // 2)))


def saved(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    image.save(path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_image(path)
    assert read.mode == "RGB"
    return np.asarray(read)
