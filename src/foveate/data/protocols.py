"""Protocols of data sets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from PIL import Image

__all__ = ["BoxedImages", "LabelledImages", "ListedImages", "SelfOrdered"]


class LabelledImages(Protocol):
    """A map-style data set: item ``i`` is an RGB image and the index of its class."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


@runtime_checkable
class BoxedImages(Protocol):
    """A data set with a bounding box per image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...

    def boxes(self, index: int, /) -> tuple[int, int, int, int]:
        """Return ``(x_min, y_min, x_max, y_max)`` in pixels of image ``index``, the last two exclusive."""
        ...


@runtime_checkable
class ListedImages(Protocol):
    """A data set that can say what it is made of without reading it."""

    def entries(self) -> Iterable[tuple[str, int | None]]:
        """Yield the names of the images and their labels; or of what holds them, and None."""
        ...


@runtime_checkable
class SelfOrdered(Protocol):
    """A data set that chooses its random order, because some are faster to read."""

    def shuffled(self, positions: range, /, *, seed: int, epoch: int) -> Iterable[int]:
        """Return the numbers of the images at ``positions`` of the order of ``epoch``.

        All positions together are all images, each once; the order depends on ``seed`` and ``epoch`` alone.
        """
        ...
