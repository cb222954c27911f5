"""Appearance of the training images, saved with the network to recognize images unlike them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from torch import Tensor

from foveate.data.decoding import UnreadableImageError
from foveate.data.divided import Divided
from foveate.data.loader_data import LoaderData
from foveate.data.placement import check_resizable, placement
from foveate.data.splitting import equally_spaced
from foveate.data.transforms import make_transform
from foveate.io import range_of

__all__ = ["appearance_of"]

LOOKED_AT = 200
"""Images to train on that are looked at."""


def appearance_of(data: Divided | LoaderData) -> dict[str, list[float]] | None:
    """Return the range of what images to train on look like, of some at equal distances, as the network sees them.

    Padding does not count. Of data loaders nothing is known: their images cannot be had without the augmentation.
    """
    if isinstance(data, LoaderData):
        return None
    return range_of(_looked_at(data))


def _looked_at(data: Divided) -> Iterator[Tensor]:
    """Yield some images, one after the other: large ones together would fill the memory."""
    prepared = make_transform(data.transform.replace(mean=(0.0,) * 3, std=(1.0,) * 3), training=False)
    for index in equally_spaced(len(data.train), LOOKED_AT):
        with suppress(UnreadableImageError):  # the loader counts it
            image = data.train[index][0]
            size = (image.height, image.width)
            check_resizable(data.transform, size, "image")
            left, top, right, bottom = placement(data.transform, size).extent(size)
            yield prepared(image)[:, top:bottom, left:right]
