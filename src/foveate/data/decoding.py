"""Decoding of image files to RGB, with a readable reason where that fails."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from foveate import _checks
from foveate._images import WHITE, to_rgb

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "BadImage",
    "UnreadableImageError",
    "check_image",
    "declared_white",
    "naming",
    "open_image",
    "read_image",
    "to_rgb",
    "warn_of_narrow_range",
    "without_orientation",
]

logger = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""The formats that are read, whatever a file is called: Pillow's other decoders never see it. Among those are one that
runs Ghostscript (EPS), and many that are seldom used and seldom tested."""
MAX_PIXELS = 2**26
"""The most pixels that an image may have, 8192×8192: more than the 61 million of a full-frame camera, fewer than the 89
million from which Pillow warns. Decoding takes up to about 20 bytes for each."""

ORIENTED = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
"""Keys of an image's information that may say that it is to be turned."""
BITS_PER_SAMPLE, MAX_SAMPLE_VALUE = 258, 281  # tags of TIFF
MAX_16_BIT = 65535
NARROW = 1 / 16
"""The part of the range of grayscale that is too little to tell an image by: 16 of the 256 levels that are left."""


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


def read_image(
    source: str | Path | IO[bytes],
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    intensity_range: tuple[float, float] | None = None,
) -> Image.Image:
    """Decode an image completely and return it as RGB, as `to_rgb` makes it.

    As usual in image classification, an orientation tag is not applied but dropped (that of a TIFF Pillow applies
    itself), and only the first frame is read.

    Args:
        source: A file, by its path or open for reading and seeking, such as an `io.BytesIO`.
        name: What to call it in messages; by default the path.
        max_pixels: The most pixels that it may have.
        intensity_range: For grayscale of more than 8 bits, as in thermal and microscopic images: the values, as they
            are stored, that become black and white. Not given: 0 and the largest that the file declares.

    Raises:
        UnreadableImageError: There is no such file, or it is damaged, truncated, too large, or no image in one of
            `FORMATS`.
    """
    with open_image(source, name=name, max_pixels=max_pixels) as image:
        found = to_rgb(image, intensity_range=intensity_range)
        # The tag goes, or what takes the image by hand, as `predict` does, would turn it away from its label or mask.
        return found if ORIENTED.isdisjoint(found.info) else without_orientation(found.copy())


def check_image(content: bytes, *, name: str) -> None:
    """Decode an image completely, whatever its range: what its pixels mean is said when it is used.

    Raises:
        UnreadableImageError: As in `read_image`.
    """
    with open_image(io.BytesIO(content), name=name) as image:
        image.load()


def without_orientation(image: Image.Image) -> Image.Image:
    """Take away all that says how ``image`` is to be turned; return it."""
    for name in ORIENTED:
        image.info.pop(name, None)
    return image


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
            if (white := declared_white(image)) is not None:
                image.info[WHITE] = white  # which copies of the image, such as turned ones, keep
            yield image


def warn_of_narrow_range(sources: Iterable[str | IO[bytes]]) -> None:
    """Log a warning if grayscale images of more than 8 bits use so little of their range that they would be all alike.

    Of images in other modes only the heads are read.
    """
    ranges = []
    for source in sources:
        with suppress(UnreadableImageError), open_image(source) as image:
            if image.mode.startswith("I"):
                values = np.asarray(image)
                ranges.append((int(values.min()), int(values.max()), image.info.get(WHITE, MAX_16_BIT)))
    if not ranges:
        return
    low, high, white = min(r[0] for r in ranges), max(r[1] for r in ranges), max(r[2] for r in ranges)
    if (high - low) / white < NARROW:
        logger.warning(
            "pixels of %d images that were looked at are from %d to %d, of 0 to %d: to the network nearly one gray; "
            "stretch all images alike with intensity_range, as in --intensity_range '[%d, %d]'",
            *(len(ranges), low, high, white, low, max(high, low + 1)),
        )


def declared_white(image: Image.Image) -> int | None:
    """Return the largest value that the tags of a grayscale TIFF allow, if that is not what its pixels' type allows.

    ``MaxSampleValue`` counts where it is of the form 2ⁿ-1: else it is, as the standard has it, a statistic of the
    image, by which images of one set would be scaled in different ways.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None or not image.mode.startswith("I"):
        return None
    bits, largest = (_first(tags.get(tag)) for tag in (BITS_PER_SAMPLE, MAX_SAMPLE_VALUE))
    if largest is not None and 255 <= largest <= MAX_16_BIT and largest & (largest + 1) == 0:
        return largest
    return 2**bits - 1 if bits is not None and 8 < bits < 16 else None


def _first(value: object) -> int | None:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while the image at ``path`` is read into an `UnreadableImageError` that names it."""
    try:
        yield
    except MemoryError:  # which is not the image's fault
        raise
    except Exception as error:  # on damaged bytes Pillow's decoders raise nearly anything, from OSError to struct.error
        raise UnreadableImageError(BadImage(str(path), _reason(error, Path(path)))) from error


def _reason(error: Exception, path: Path) -> str:
    if os.path.isfile(path) and path.stat().st_size == 0:  # which takes names of any length
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"this is not an image in a format that is read ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
