"""Images of the report's grid, and how they are shown."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from foveate.data import TransformConfig, placement
from foveate.io import NetworkMeta
from foveate.report.figures import data_uri

__all__ = ["Sample", "denormalized", "encoded", "extent_of", "renormalized", "shown_width", "zoom_of"]

SHOWN_SIDE, LARGEST = 144, 512
"""Images smaller than the one are enlarged to about so many pixels, pictures larger than the other are reduced."""


@dataclass(frozen=True)
class Sample:
    """A test image of the grid."""

    index: int
    """Index in the data set."""
    label: Any
    """Its target: an index into the classes; of dense data, what the loader makes of mask or objects."""
    caption: str
    """What is known of it, in words."""
    tensor: Tensor
    """Input of the networks, ``(C, H, W)``."""
    extent: tuple[int, int, int, int]
    """The part of it that the image fills: left, top, right, bottom; the rest is padding."""
    seen: Image.Image
    """The same before normalization."""
    picture: str
    """The same as a data URI, with the true box, boxes or mask where they are known."""
    boxed: bool


def denormalized(tensor: Tensor, transform: TransformConfig) -> Image.Image:
    """Return what a network saw as an image."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (transform.mean, transform.std))
    pixels = (tensor * std + mean).clamp(0, 1) * 255
    return Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy())


def extent_of(transform: TransformConfig, image: Image.Image) -> tuple[int, int, int, int]:
    """Return the part of the input that an image fills: left, top, right, bottom."""
    size = (image.height, image.width)
    return placement(transform, size).extent(size)


def renormalized(sample: Sample, transform: TransformConfig, meta: NetworkMeta) -> Tensor:
    """Return an input that was normalized by ``transform`` as a network takes it: a pretrained one has its own way.

    What is padded is zero after the normalization, whichever it is.
    """
    tensor = sample.tensor
    if (tuple(meta.mean), tuple(meta.std)) == (tuple(transform.mean), tuple(transform.std)):
        return tensor
    (mean, std), (own_mean, own_std) = (
        [torch.tensor(values)[:, None, None] for values in (by.mean, by.std)] for by in (transform, meta)
    )
    left, top, right, bottom = sample.extent
    image = (tensor * std + mean - own_mean) / own_std
    if transform.fit != "pad":  # a border is black before the normalization then
        return image
    found = torch.zeros_like(image)
    found[:, top:bottom, left:right] = image[:, top:bottom, left:right]
    return found


def shown_width(image_size: tuple[int, int]) -> int:
    """Return how wide the pictures of images of this height and width are shown, in pixels of the page."""
    return round(image_size[1] * SHOWN_SIDE / max(image_size))


def zoom_of(image: Image.Image) -> int:
    """Return how many times an image is enlarged."""
    return max(1, round(SHOWN_SIDE / max(image.size)))


def encoded(picture: Image.Image) -> str:
    """Return a picture as a data URI: exact if it is a small image enlarged, else compressed, and reduced if large."""
    buffer = io.BytesIO()
    if max(picture.size) > LARGEST:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    if max(picture.size) < 2 * SHOWN_SIDE and picture.width * picture.height < 200**2:
        picture.save(buffer, "PNG", optimize=True)
        return data_uri(buffer.getvalue(), "image/png")
    picture.save(buffer, "JPEG", quality=88)
    return data_uri(buffer.getvalue(), "image/jpeg")
