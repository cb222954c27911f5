"""Drawing what a network attended to over the image that it saw."""

from __future__ import annotations

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from foveate import _checks
from foveate.explain.maps import AttentionRecord

__all__ = ["PALETTE", "draw_box", "overlay", "palette_stops"]

PALETTE = "viridis"
"""matplotlib's name; perceptually uniform, readable with every kind of colour blindness and in grey."""
OPACITY = 0.55
OVERSAMPLING = 4
"""Outlines are drawn so many times larger and then reduced, which smooths their edges."""
INK, HALO = (255, 255, 255), (0, 0, 0)


def overlay(image: Image.Image, record: AttentionRecord, index: int = 0, *, zoom: int = 1) -> Image.Image:
    """Draw what ``record`` says of image ``index`` of its batch over ``image``.

    The map is drawn in colours of `PALETTE` on the image in shades of grey, on the fixed scale ``record.scale``: a
    flat map is one flat colour, the same in every picture. Each of its values fills its rectangle of the image;
    nothing is smoothed. CRAM's rectangle is an outline. ExpAtt's radius is a circle around the position that attends,
    or around the middle of the image if that is all of them (the radius is the same everywhere).

    Args:
        image: The image as the network saw it, before normalisation: ``record.image_size``, any mode.
        record: One of `attention_records`.
        index: Which image of the batch it is.
        zoom: How many pixels of the result one pixel of the image becomes, along each side.

    Raises:
        ValueError: The image has another size than the record's, or ``index`` or ``zoom`` is out of range.
    """
    _checks.integer("zoom", zoom)
    height, width = record.image_size
    if image.size != (width, height):
        raise ValueError(f"the record is of images of {height}×{width} pixels; got one of {image.height}×{image.width}")
    if not 0 <= _checks.integer("index", index, minimum=0) < len(record.map):
        raise ValueError(f"index must be below {len(record.map)}, the number of images in the record; got {index}")
    size = (width * zoom, height * zoom)
    grey = image.convert("L").convert("RGB").resize(size, Image.Resampling.NEAREST)
    shares = (record.map[index].double().numpy() - record.scale.low) / (record.scale.high - record.scale.low)
    colours = Image.fromarray(_colours(shares.clip(0, 1))).resize(size, Image.Resampling.NEAREST)
    picture = Image.blend(grey, colours, OPACITY)
    if record.rectangle is not None:
        corners = [(x * zoom, y * zoom) for x, y in record.rectangle[index].tolist()]
        picture = _outline(picture, corners)
    if record.radius_image is not None:
        angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        circle = _centre(record) + np.array(record.radius_image) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        picture = _outline(picture, [(x * zoom, y * zoom) for x, y in circle.tolist()])
    return picture


def _centre(record: AttentionRecord) -> NDArray[np.float64]:
    """Return x and y, in image pixels, of the middle of the position that attends, else of the image."""
    shape, size = np.array(record.map.shape[:0:-1]), np.array(record.image_size[::-1])
    if record.query is None:
        return size / 2
    return (np.array(record.query[::-1]) * shape // size + 0.5) * size / shape


def draw_box(
    image: Image.Image,
    box: tuple[float, float, float, float],
    *,
    zoom: int = 1,
    colour: tuple[int, int, int] = (255, 176, 0),
) -> Image.Image:
    """Return ``image`` enlarged ``zoom`` times, with the outline of ``box``: x_min, y_min, x_max, y_max in its pixels.

    The last two are exclusive, so that the outline runs along the outer edges of the box's pixels.
    """
    left, top, right, bottom = (side * zoom for side in box)
    picture = image.convert("RGB").resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    return _outline(picture, [(left, top), (right, top), (right, bottom), (left, bottom)], colour)


def palette_stops(number: int = 9, *, ground: int = 0) -> list[str]:
    """Return ``number`` colours from low to high as ``#rrggbb``, to draw a legend with.

    They are those that `overlay` gives to pixels whose grey is ``ground``, from 0 (black) to 255 (white).
    """
    colours = OPACITY * _colours(np.linspace(0, 1, number)) + (1 - OPACITY) * ground
    return ["#" + "".join(f"{round(channel):02x}" for channel in colour) for colour in colours.tolist()]


def _colours(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the colours ``(…, 3)`` of places on the scale, from 0 at its low to 1 at its high end."""
    return matplotlib.colormaps[PALETTE](shares, bytes=True)[..., :3]


def _outline(
    picture: Image.Image, corners: list[tuple[float, float]], colour: tuple[int, int, int] = INK
) -> Image.Image:
    """Draw a closed line through ``corners``, in ``colour`` with a dark halo: visible on any ground.

    A corner at (0, 0) is the outer corner of the first pixel, one at (1, 1) the point where it meets its neighbours.
    """
    large = (picture.width * OVERSAMPLING, picture.height * OVERSAMPLING)
    line = max(1, round(max(picture.size) / 100)) * OVERSAMPLING
    path = [(x * OVERSAMPLING - 0.5, y * OVERSAMPLING - 0.5) for x, y in corners]
    for ink, width in ((HALO, 2 * line), (colour, line)):
        mask = Image.new("L", large)
        ImageDraw.Draw(mask).line([*path, *path[:2]], fill=255, width=width, joint="curve")
        mask = mask.resize(picture.size, Image.Resampling.BOX)
        picture = Image.composite(Image.new("RGB", picture.size, ink), picture, mask)
    return picture
