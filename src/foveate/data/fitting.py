"""Fitting a whole image into a tensor: resized in proportion, and padded at the right and below."""

from __future__ import annotations

from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

__all__ = ["Fit", "Pad", "fitted_size", "resized"]


def fitted_size(image_size: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest height and width in proportion to ``image_size`` that fit in ``size``, to the nearest pixel.

    A side has at least one pixel: an image 1000 times as long as it is high keeps one row.
    """
    scale = min(side / own for side, own in zip(size, image_size, strict=True))
    height, width = (min(max(round(own * scale), 1), side) for side, own in zip(size, image_size, strict=True))
    return height, width


def resized(image: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    """Resize an image to height and width; one that has them already is returned as it is."""
    if (image.height, image.width) == size:
        return image
    return TF.resize(image, list(size), InterpolationMode(interpolation))


class Fit:
    """Resize of an image to as much of ``size`` as its proportions allow."""

    def __init__(self, size: tuple[int, int], interpolation: str) -> None:
        self.size, self.interpolation = size, interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image, at most ``size`` high and wide."""
        return resized(image, fitted_size((image.height, image.width), self.size), self.interpolation)


class Pad:
    """Zeros at the right of a normalized tensor and below it: the mean color."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return ``(C, *size)``."""
        height, width = (whole - own for whole, own in zip(self.size, tensor.shape[-2:], strict=True))
        return F.pad(tensor, (0, width, 0, height))
