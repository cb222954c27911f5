"""Drawing of cluttered digits: one whole digit, and fragments of others."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from foveate import _extras
from foveate.data.splitting import stratified_split

__all__ = ["SPLITS", "Digit", "Drawn", "Handwriting", "draw_digit", "draw_fragments", "paste"]

SPLITS = {"train": 0.6, "val": 0.15, "test": 0.25}
"""Shares of the handwriting."""
DIGIT_HEIGHT = (0.3, 0.5)
"""Height of the digit's ink before it is turned, as a share of the unit, which is the canvas unless said otherwise."""
DIGIT_ANGLE = math.radians(30)
FRAGMENT_SCALE = (0.8, 1.1)
"""Height of the digit that a fragment is cut from, as a share of the whole digit's on the same canvas."""
FRAGMENT_PART = (0.4, 0.65)
"""Height and width of a fragment, as a share of those of the digit that it is cut from."""
PLACES_TRIED = 16
GAP = 0.03
"""Room kept between the digit's box and a fragment's, as a share of the unit; touching strokes would mislead."""
INK = 64
"""A pixel of at least this value is ink, for the box."""

Box = tuple[int, int, int, int]


class Drawn(NamedTuple):
    """A piece of handwriting as it looks on the canvas: its pixels and their upper left corner."""

    pixels: np.ndarray
    x: int
    y: int


class Digit(NamedTuple):
    """The whole digit of a canvas.

    Attributes:
        drawn: How it looks.
        source: The number of its handwriting.
        height: The height of its ink in pixels before it was turned.
        box: The tight box of its ink, ``(x_min, y_min, x_max, y_max)``, the last two exclusive.
    """

    drawn: Drawn
    source: int
    height: float
    box: Box


class Handwriting(NamedTuple):
    """The digits of one split: images cropped to their ink, and the numbers of those of each class."""

    tiles: list[Image.Image]
    by_class: list[list[int]]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, split: str, unit: int) -> Handwriting:
        """Return the digits of ``split`` at a resolution that suits a unit of that many pixels."""
        images, labels = _extras.require("sklearn.datasets", extra="train").load_digits(return_X_y=True)
        parts = stratified_split(labels, list(SPLITS.values()), seed=0)  # fixed: no seed moves a digit between splits
        chosen = parts[list(SPLITS).index(split)]
        height = math.ceil(DIGIT_HEIGHT[1] * unit)  # as high as the highest digit, so that tiles only shrink
        tiles = [_enlarge(pixels.reshape(8, 8), height) for pixels in images[chosen]]
        return cls(tiles, [np.flatnonzero(labels[chosen] == digit).tolist() for digit in range(10)])


def draw_digit(generator: np.random.Generator, handwriting: Handwriting, label: int, size: int, unit: int) -> Digit:
    """Draw a digit of class ``label`` wholly inside a canvas of ``size`` pixels, as large as ``unit`` says."""
    which, height, angle, x, y = generator.random(5).tolist()
    members = handwriting.by_class[label]
    source = members[int(which * len(members))]
    tile = handwriting.tiles[source]
    height = _between(DIGIT_HEIGHT, height) * unit
    scale = height / tile.height
    angle = (2 * angle - 1) * DIGIT_ANGLE
    half_x, half_y = _half_extent(tile, scale, angle)
    center = (half_x + x * (size - 2 * half_x), half_y + y * (size - 2 * half_y))
    drawn = _turn(tile, center, scale, angle, size)
    return Digit(drawn, source, height, _ink_box(drawn))


def draw_fragments(
    generator: np.random.Generator, handwriting: Handwriting, digit: Digit, size: int, unit: int, count: int
) -> list[Drawn]:
    """Draw parts of ``count`` other digits beside ``digit``, on a canvas of ``size`` pixels.

    Each goes to the first of 16 random places where its box is clear of the digit's, or shares least with it.
    """
    places = generator.random((count, PLACES_TRIED, 2)) * size
    drawn = []
    for numbers, tried in zip(generator.random((count, 7)).tolist(), places, strict=True):
        which, share, angle, *cut = numbers
        other = int(which * (len(handwriting.tiles) - 1))
        tile = handwriting.tiles[other + (other >= digit.source)]
        scale = _between(FRAGMENT_SCALE, share) * digit.height / tile.height
        part = _cut(tile, *cut)
        angle *= 2 * math.pi
        half_x, half_y = _half_extent(part, scale, angle)
        overlap = _overlap(tried, (half_x + GAP * unit, half_y + GAP * unit), digit.box)
        drawn.append(_turn(part, tuple(tried[overlap.argmin()]), scale, angle, size))
    return drawn


def paste(canvas: np.ndarray, piece: Drawn) -> None:
    """Put ``piece`` on ``canvas``, in place; where ink meets ink the brighter counts."""
    height, width = piece.pixels.shape
    under = canvas[piece.y : piece.y + height, piece.x : piece.x + width]
    np.maximum(under, piece.pixels, out=under)


def _ink_box(piece: Drawn) -> Box:
    ink = piece.pixels >= INK
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return (
        piece.x + int(columns[0]),
        piece.y + int(rows[0]),
        piece.x + int(columns[-1]) + 1,
        piece.y + int(rows[-1]) + 1,
    )


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])


def _cut(tile: Image.Image, width: float, height: float, x: float, y: float) -> Image.Image:
    """Crop a part of a tile; all four numbers are shares, of the sizes allowed and of the places left."""
    width = _between(FRAGMENT_PART, width) * tile.width
    height = _between(FRAGMENT_PART, height) * tile.height
    left, top = x * (tile.width - width), y * (tile.height - height)
    return tile.crop((round(left), round(top), round(left + width), round(top + height)))


def _half_extent(tile: Image.Image, scale: float, angle: float) -> tuple[float, float]:
    """Half the width and height of the upright box around a tile that is scaled and turned."""
    width, height = tile.width * scale / 2, tile.height * scale / 2
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    return width * cos + height * sin, width * sin + height * cos


def _overlap(centers: np.ndarray, half: tuple[float, float], box: Box) -> np.ndarray:
    """Area that boxes of half-size ``half`` around ``centers`` (n, 2) share with ``box``; 0 for all that clear it."""
    low, high = np.array(box[:2]), np.array(box[2:])
    shared = np.minimum(centers + half, high) - np.maximum(centers - half, low)  # n, 2
    return shared.clip(0).prod(1)


def _turn(tile: Image.Image, center: tuple[float, float], scale: float, angle: float, size: int) -> Drawn:
    """Draw ``tile`` scaled and turned around ``center``, and return the part of it that is on the canvas."""
    half_x, half_y = _half_extent(tile, scale, angle)
    x0, x1 = max(math.floor(center[0] - half_x), 0), min(math.ceil(center[0] + half_x), size)
    y0, y1 = max(math.floor(center[1] - half_y), 0), min(math.ceil(center[1] + half_y), size)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    shift_x, shift_y = x0 - center[0], y0 - center[1]
    inverse = (
        *(cos, sin, tile.width / 2 + cos * shift_x + sin * shift_y),
        *(-sin, cos, tile.height / 2 - sin * shift_x + cos * shift_y),
    )  # from a place on the canvas to the place in the tile
    turned = tile.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    return Drawn(np.asarray(turned), x0, y0)


def _enlarge(pixels: np.ndarray, height: int) -> Image.Image:
    """Enlarge 8×8 pixels of 0 to 16 to ``height``, with more contrast since enlarging blurs, and crop to the ink."""
    gray = Image.fromarray(np.rint(np.pad(pixels, 1) * (255 / 16)).astype(np.uint8))
    side = math.ceil(height * 10 / 8)
    large = np.asarray(gray.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
    tile = Image.fromarray(np.rint(((large - 60) * (255 / 140)).clip(0, 255)).astype(np.uint8))
    return tile.crop(tile.getbbox())
