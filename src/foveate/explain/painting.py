"""Masks and boxes drawn over images, and the colors of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from foveate.explain.lettering import TEXT, font, height_of, shortened, width_of, write
from foveate.explain.overlay import outlined, zoom_of

__all__ = ["Color", "boxed", "class_color", "colored", "key_of_colors", "marked", "object_color", "palette", "with_key"]

Color = tuple[int, int, int]

OPACITY = 0.6
MASK_OPACITY = 0.45
MARK = 5
"""Half the side of the mark around a pixel, in pixels of the picture."""


def class_color(label: int) -> Color:
    """Return the color of a class of pixels, that of Pascal VOC: the bits of the index dealt to the channels."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= ((label >> bit) & 1) << (7 - bit // 3)
    red, green, blue = channels
    return red, green, blue


def object_color(label: int) -> Color:
    """Return the color of a class of objects, brightened: that of the first is not black, which is the background's."""
    red, green, blue = class_color(label + 1)
    return red // 2 + 127, green // 2 + 127, blue // 2 + 127


def palette() -> list[int]:
    """Return the colors of 256 classes, as a palette of Pillow's."""
    return [channel for label in range(256) for channel in class_color(label)]


def colored(image: Image.Image, labels: NDArray[np.uint8], side: int) -> Image.Image:
    """Draw the class of each pixel in its color over an image in shades of gray, at the size of `enlarged`."""
    size = _shown_size(image, side)
    how = Image.Resampling.NEAREST if size[0] >= image.width else Image.Resampling.LANCZOS
    ground = image.convert("L").convert("RGB").resize(size, how)
    mask = Image.fromarray(labels, "P").resize(size, Image.Resampling.NEAREST)
    mask.putpalette(palette())
    return Image.blend(ground, mask.convert("RGB"), OPACITY)


def boxed(
    image: Image.Image,
    boxes: Sequence[Sequence[float]],
    names: Sequence[str],
    labels: Sequence[int],
    side: int,
    *,
    masks: Sequence[NDArray[np.bool_] | None] = (),
) -> Image.Image:
    """Draw boxes in pixels of the image, with what is written at each, over it, at the size of `enlarged`.

    What would cover the name of an object before it, as of many objects close together, is left away.

    Args:
        image: The image, RGB.
        boxes: ``x_min, y_min, x_max, y_max`` of each object.
        names: What is written at each.
        labels: Their classes, which give the colors.
        side: Longer side of the result, where the image is not enlarged by a whole number.
        masks: The pixels of each object, or None.
    """
    size = _shown_size(image, side)
    picture = image.resize(size, Image.Resampling.NEAREST if size[0] >= image.width else Image.Resampling.LANCZOS)
    scale = np.array(size) / image.size
    for mask, label in zip(masks, labels, strict=False):
        if mask is not None:
            opacity = Image.fromarray(mask.astype(np.uint8) * round(255 * MASK_OPACITY))
            where = opacity.resize(size, Image.Resampling.NEAREST)
            picture = Image.composite(Image.new("RGB", size, object_color(label)), picture, where)
    face = font(max(9, side // 32))
    drawn = list(zip(boxes, names, labels, strict=True))[::-1]  # the surest last, on top
    for box, _, label in drawn:
        x_min, y_min, x_max, y_max = box
        corners = np.array([(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]) * scale
        picture = outlined(picture, corners, object_color(label), width=max(2, side // 200))
    taken: list[tuple[int, int, int, int]] = []
    for box, name, label in drawn[::-1]:
        left, top, right, bottom = place = _tag_place(picture, box, scale, name, face)
        if not any(left < r and x < right and top < b and y < bottom for x, y, r, b in taken):
            ImageDraw.Draw(picture).rectangle([left, top, right - 1, bottom - 1], fill=object_color(label))
            write(picture, (left + 2, top), name, face, TEXT)
            taken.append(place)
    return picture


def _tag_place(
    picture: Image.Image, box: Sequence[float], scale: NDArray[np.float64], name: str, face: Any
) -> tuple[int, int, int, int]:
    """Return where a name goes: above its box, or in it where there is no room above, never outside of the picture."""
    width, height = round(width_of(name, face)) + 4, height_of(name, face)
    left = min(max(0, round(box[0] * scale[0])), max(0, picture.width - width))
    top = round(box[1] * scale[1]) - height
    top = top if top >= 0 else min(round(box[1] * scale[1]), picture.height - height)
    return left, top, left + width, top + height


def marked(picture: Image.Image, image: Image.Image, query: tuple[int, int]) -> Image.Image:
    """Outline the pixel in row and column ``query`` of the image on a picture of it."""
    scale = np.array(picture.size) / image.size
    center = (np.array(query[::-1]) + 0.5) * scale
    half = np.maximum(scale / 2, MARK)
    corners = center + half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return outlined(picture, corners, (255, 255, 255), width=1)


def key_of_colors(key: Mapping[str, Color], *, size: int, width: int) -> Image.Image:
    """Draw the colors of classes with their names, in letters of ``size`` pixels, in as many lines as it takes."""
    face = font(size)
    names = [shortened(name, face, width - 2.5 * size) for name in key]
    places, x, line = [], 0, 0
    for name in names:
        needed = round(2 * size + width_of(name, face) + 1.5 * size)
        if x and x + needed > width:
            x, line = 0, line + 1
        places.append((x, round(line * 1.6 * size)))
        x += needed
    picture = Image.new("RGB", (width, round((line + 1) * 1.6 * size)), "white")
    for name, color, (left, top) in zip(names, key.values(), places, strict=True):
        ImageDraw.Draw(picture).rectangle([left, top, left + round(1.5 * size), top + size], fill=color, outline=TEXT)
        write(picture, (left + 2 * size, top - size // 6), name, face, TEXT)
    return picture


def with_key(picture: Image.Image, key: Mapping[str, Color]) -> Image.Image:
    """Return a picture with the legend of its colors below."""
    size = max(9, max(picture.size) // 30)
    legend = key_of_colors(key, size=size, width=max(picture.width, 12 * size))
    whole = Image.new("RGB", (legend.width, picture.height + size + legend.height), "white")
    whole.paste(picture, (0, 0))
    whole.paste(legend, (0, picture.height + size))
    return whole


def _shown_size(image: Image.Image, side: int) -> tuple[int, int]:
    zoom = zoom_of(image, side)
    return max(1, round(image.width * zoom)), max(1, round(image.height * zoom))
