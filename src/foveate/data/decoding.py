"""From a file to an RGB image, or to a plain statement of why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from foveate import _checks
from foveate._images import to_rgb

__all__ = ["FORMATS", "MAX_PIXELS", "BadImage", "UnreadableImageError", "naming", "open_image", "read_image", "to_rgb"]

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""The formats that are read, whatever a file is called: Pillow's other decoders never see it. Among those are one that
runs Ghostscript (EPS), and many that are seldom used and seldom tested."""
MAX_PIXELS = 2**26
"""The most pixels that an image may have, 8192×8192: more than the 61 million of a full-frame camera, fewer than the 89
million from which Pillow warns. Decoding takes up to about 20 bytes for each."""


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


def read_image(source: str | Path | IO[bytes], *, name: str = "", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image completely and return it as RGB, as `to_rgb` makes it.

    As usual in image classification, an orientation tag is not applied and only the first frame is read.

    Args:
        source: A file, by its path or open for reading and seeking, such as an `io.BytesIO`.
        name: What to call it in messages; by default the path.
        max_pixels: The most pixels that it may have.

    Raises:
        UnreadableImageError: There is no such file, or it is damaged, truncated, too large, or no image in one of
            `FORMATS`.
    """
    with open_image(source, name=name, max_pixels=max_pixels) as image:
        return to_rgb(image)


@contextmanager
def open_image(
    source: str | Path | IO[bytes], *, name: str = "", max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open an image for the duration, of which only the head has been read; arguments and errors as in `read_image`.

    What goes wrong while it is decoded inside is named in the same way.
    """
    _checks.integer("max_pixels", max_pixels)
    path = Path(source) if isinstance(source, str | Path) else None
    with naming(name or (path or "image")):
        if path is not None and path.is_fifo():
            raise ValueError("this is a pipe, not a file")  # which one would wait for
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"{image.width}×{image.height} pixels are more than the {max_pixels} that are decoded")
            yield image


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while the image at ``path`` is read into an `UnreadableImageError` that names it."""
    try:
        yield
    except Exception as error:  # on damaged bytes Pillow's decoders raise nearly anything, from OSError to struct.error
        raise UnreadableImageError(BadImage(str(path), _reason(error, Path(path)))) from error


def _reason(error: Exception, path: Path) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"this is not an image in a format that is read ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
