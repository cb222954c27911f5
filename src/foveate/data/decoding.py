"""From a file to an RGB image, or to a plain statement of why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from foveate._images import to_rgb

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


def _reason(error: Exception, path: Path) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "this is not an image in a format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
