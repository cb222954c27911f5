"""The images that the page offers, and those that are uploaded to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from PIL import Image
from sklearn.datasets import load_sample_image

from foveate.data import ClutteredDigits
from foveate.data.decoding import UnreadableImageError, open_image, to_rgb
from foveate.data.given import turned_upright

__all__ = ["MAX_PIXELS", "MAX_SIDE", "MAX_UPLOAD", "ShownImage", "Uploads", "draw_samples", "flower", "read_upload"]

MAX_UPLOAD = 10 * 2**20
"""Most bytes of a file that is uploaded."""
MAX_PIXELS = 2**25
"""Most pixels that it may have, by its head: 8192×4096."""
MAX_SIDE = 1024
"""What is larger is reduced to this before it is kept, so that many visitors fit in memory."""


@dataclass(frozen=True, eq=False)
class ShownImage:
    """An image that networks are shown."""

    pixels: Image.Image
    """8-bit RGB."""
    label: str | None = None
    """Its true class, where it is known."""


def draw_samples(number: int, seed: int) -> list[ShownImage]:
    """Draw cluttered digits from handwriting that no network was trained on."""
    digits = ClutteredDigits("test", length=number, seed=seed)
    samples = map(digits.sample, range(number))
    return [ShownImage(sample.image, digits.classes[sample.label]) for sample in samples]


def flower() -> ShownImage:
    """Return the photograph of a flower that comes with scikit-learn."""
    return ShownImage(Image.fromarray(load_sample_image("flower.jpg")))


def read_upload(path: str | Path, intensity_range: Sequence[float] | None = None) -> ShownImage:
    """Decode an uploaded file with its EXIF orientation applied, at most `MAX_SIDE` pixels long.

    What it is, and how large, is read from its head before anything is decoded. ``intensity_range`` is that of the
    networks, see `foveate.data.open_data`.

    Raises:
        ValueError: It is no image, damaged, too large, or moves; the message is for the person who uploaded it.
    """
    try:
        with open_image(path, name="the file", max_pixels=MAX_PIXELS) as image:
            # Telephones store a preview beside a photograph, and call that MPO.
            if getattr(image, "is_animated", False) and image.format != "MPO":  # not to be counted: there may be many
                raise ValueError("it moves or has pages; save one as PNG")
            pixels = to_rgb(turned_upright(image), intensity_range=intensity_range)
    except UnreadableImageError as error:
        raise ValueError(f"This file cannot be shown: {_reason(error)}.") from error
    pixels.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    pixels.info.clear()
    return ShownImage(pixels)


class Uploads:
    """Reads files that were uploaded and deletes them. Equal ones of several visitors are one file."""

    def __init__(self, intensity_range: Sequence[float] | None = None) -> None:
        self._range = intensity_range
        self._reading, self._read = Lock(), WeakValueDictionary[str, ShownImage]()

    def read(self, path: str) -> ShownImage:
        """Return what `read_upload` returns, or has returned for another visitor who still looks at it."""
        with self._reading:
            try:
                image = None if Path(path).exists() else self._read.get(path)
                self._read[path] = image = image or read_upload(path, self._range)
                return image
            finally:
                Path(path).unlink(missing_ok=True)


def _reason(error: UnreadableImageError) -> str:
    if isinstance(error.__cause__, Image.DecompressionBombError):
        return f"it has more than the {MAX_PIXELS} pixels that are decoded here; reduce it first"
    return error.bad.reason
