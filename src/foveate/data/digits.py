"""Cluttered digits: handwriting at a random place, size and angle among fragments of other digits.

A network must find the digit before it can tell which one it is, and where the digit stands is known. The handwriting
is scikit-learn's `load_digits` (1,797 digits of 8×8 pixels, from the UCI repository); the images are drawn on the fly.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from foveate import _checks
from foveate.data.drawing import SPLITS, Digit, Handwriting, draw_digit, draw_fragments, paste

__all__ = ["DEFAULT_CLUTTER", "DEFAULT_SIZE", "DIGITS_MEAN", "DIGITS_STD", "ClutteredDigits", "DigitSample"]

DEFAULT_SIZE = 32
DEFAULT_CLUTTER = 8
MIN_SIZE = 16
DIGITS_MEAN = (0.14, 0.14, 0.14)
DIGITS_STD = (0.31, 0.31, 0.31)
"""Measured over the training images at the default size and clutter."""

LENGTHS = {"train": 12_000, "val": 1_000, "test": 2_000}
MOST_KEPT = 2**32
"""Bytes of canvases, of all images together, beyond which each is drawn anew."""


class DigitSample(NamedTuple):
    """One canvas: the image, the digit's class, and the box ``(x_min, y_min, x_max, y_max)`` of its ink."""

    image: Image.Image
    label: int
    box: tuple[int, int, int, int]


class ClutteredDigits(Dataset[tuple[Any, int]]):
    """A map-style data set of canvases with one whole digit and fragments of others.

    Sample ``index`` is a function of ``(seed, split, index)`` alone. Its class is ``index % 10``, so the classes are
    balanced; which handwriting of that class, and everything else, is drawn at random. The splits share no
    handwriting, in the digits or in the fragments, whatever the seed.

    The digit's ink is 0.3 to 0.5 of the unit high, turned by up to 30°, and wholly inside the canvas. A fragment is a
    part of another digit, about half as high and wide, drawn at nearly the same scale and turned by any angle;
    fragments may reach over the edge of the canvas and over each other, but lie beside the digit wherever there is
    room. Where ink meets ink the brighter counts.

    Args:
        split: ``train``, ``val`` or ``test``: 60, 15 and 25 % of the handwriting.
        size: Side of the square canvas in pixels, at least 16.
        clutter: Number of fragments.
        unit: What the digit is measured in, in pixels: 16 to ``size``, which it is by default. On a canvas larger than
            its unit there is more around digits as large as before.
        length: Number of samples; 12,000, 1,000 and 2,000 by default.
        seed: Seed of everything but the division into splits.
        transform: Applied to the image of ``dataset[index]``.
        cache: Keep each canvas once drawn, as ``length · size²`` bytes, unless these are more than 4 GiB. Processes
            forked afterwards share it.

    Raises:
        ValueError: An argument is out of its range.
        MissingExtraError: scikit-learn is not installed.
    """

    classes = tuple("0123456789")

    def __init__(
        self,
        split: str = "train",
        *,
        size: int = DEFAULT_SIZE,
        clutter: int = DEFAULT_CLUTTER,
        unit: int | None = None,
        length: int | None = None,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        cache: bool = True,
    ) -> None:
        self.split = _checks.one_of("split", split, SPLITS)
        self.size = _checks.integer("size", size, minimum=MIN_SIZE)
        self.clutter = _checks.integer("clutter", clutter, minimum=0)
        self.unit = _checks.integer("unit", self.size if unit is None else unit, minimum=MIN_SIZE)
        if self.unit > self.size:
            raise ValueError(f"unit must be at most the size of the canvas, {self.size}; got {self.unit}")
        self.length = _checks.integer("length", LENGTHS[split] if length is None else length)
        self.seed = _checks.integer("seed", seed, minimum=0)
        self.transform = transform
        self.cache = cache
        self._prepare()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self._canvas(self._checked(index))).convert("RGB")
        return (image if self.transform is None else self.transform(image)), index % 10

    def sample(self, index: int) -> DigitSample:
        """Return image (without the transform), label and box together."""
        canvas = self._canvas(self._checked(index))
        return DigitSample(Image.fromarray(canvas).convert("RGB"), index % 10, self.boxes(index))

    def boxes(self, index: int) -> tuple[int, int, int, int]:
        """Return the tight box of the digit's ink, ``(x_min, y_min, x_max, y_max)``, the last two exclusive."""
        return self.digit(index).box

    def digit(self, index: int) -> Digit:
        """Return the whole digit of a canvas as it was drawn, without what lies over it."""
        return draw_digit(self._generator(self._checked(index)), self._handwriting, index % 10, self.size, self.unit)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def _prepare(self) -> None:
        self._handwriting = Handwriting.of(self.split, self.unit)
        # An anonymous map is shared with forked workers, so they fill one cache between them.
        pixels = self.size**2 * self.length
        self._kept = self.cache and pixels <= MOST_KEPT
        pixels = pixels if self._kept else 0
        buffer = mmap.mmap(-1, pixels + self.length)
        self._drawn = np.frombuffer(buffer, np.uint8, self.length)
        self._cache = np.frombuffer(buffer, np.uint8, pixels, self.length).reshape(-1, self.size, self.size)

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(f"index must be from 0 to {self.length - 1}; got {index}")
        return index

    def _canvas(self, index: int) -> np.ndarray:
        if self._drawn[index]:
            return self._cache[index]
        canvas = self._draw(index)
        if self._kept:
            self._cache[index] = canvas
            self._drawn[index] = 1  # after the pixels: another process may be looking
        return canvas

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, list(SPLITS).index(self.split), index])

    def _draw(self, index: int) -> np.ndarray:
        generator = self._generator(index)
        digit = draw_digit(generator, self._handwriting, index % 10, self.size, self.unit)
        clutter = draw_fragments(generator, self._handwriting, digit, self.size, self.unit, self.clutter)
        canvas = np.zeros((self.size, self.size), np.uint8)
        for piece in (digit.drawn, *clutter):
            paste(canvas, piece)
        return canvas
