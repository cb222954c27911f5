"""Pictures of what a network attended to, drawn over the image that it saw."""

from __future__ import annotations

from typing import Any, Protocol

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from foveate import _checks
from foveate._images import to_rgb
from foveate.explain.records import AttentionRecord

__all__ = ["PALETTE", "Place", "draw_box", "outlined", "overlay", "palette_stops", "zoom_of"]

PALETTE = "viridis"
"""Colormap of matplotlib: perceptually uniform, readable with every kind of color blindness and in gray."""
OPACITY = 0.55
FADED, PALE = 0.7, (224, 224, 224)
"""Opacity and color over what the network did not see: a gray that differs from a white page."""
INK, HALO = (255, 255, 255), (0, 0, 0)


class Place(Protocol):
    """Place of an image in the input of a network after a resize and a crop; `foveate.data.placement` gives one.

    Points are ``(…, 2)``, x and y in pixels, 0 at the left and upper edge of the first.
    """

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input."""

    def to_input(self, points: Any, /) -> NDArray[np.float64]:
        """Map points of the image to points of the input."""

    def to_image(self, points: Any, /) -> NDArray[np.float64]:
        """Map points of the input to points of the image."""


class _Unmoved:
    """Place of an image that the network saw as it is."""

    def __init__(self, record: AttentionRecord) -> None:
        self.input_size = record.image_size

    def to_input(self, points: Any) -> NDArray[np.float64]:
        return np.asarray(points, np.float64)

    to_image = to_input


def overlay(
    image: Image.Image,
    record: AttentionRecord,
    index: int = 0,
    *,
    zoom: float = 1,
    placement: Place | None = None,
) -> Image.Image:
    """Draw the map of ``record`` for image ``index`` of its batch over ``image``.

    The map is drawn in colors of `PALETTE` on the image in shades of gray, on the fixed scale ``record.scale``: a
    flat map is one flat color, the same in every picture. Each of its values fills its part of the image; nothing is
    smoothed. What was cropped away before the network saw it is faded and has no color.

    CRAM's rectangle is an outline, wherever it reaches. One that covers (almost) the whole picture is the outline
    alone, along the edges of what the network saw, and the picture keeps its own colors. ExpAtt's radius is a circle
    around the position that attends, or around the middle of the input for all positions together. Of other attention
    the position that attends, or is attended to, is outlined, as are the positions of a box.

    Args:
        image: The image, in any mode. Without ``placement``, as the network saw it, ``record.image_size``; else the
            original. An orientation tag is ignored, as by the network's input.
        record: A record of `foveate.explain`.
        index: Index of the image in the batch.
        zoom: Pixels of the result per pixel of the image, along each side; below 1 reduces it.
        placement: Place of the image in the network's input.

    Examples:
        >>> network, image = timm.create_model("cram_resnet_tiny"), Image.new("RGB", (32, 32), "gray")
        >>> record = foveate.explain(network, torch.randn(1, 3, 32, 32)).records[0]
        >>> foveate.explain.overlay(image, record, zoom=4).size
        (128, 128)
    """
    _checks.number("zoom", zoom, above=0)
    height, width = record.image_size
    if placement is None:
        if image.size != (width, height):
            raise ValueError(
                f"the record is of images of {height}×{width} pixels; got one of {image.height}×{image.width}: of the "
                "original of a resized or cropped image, give its placement"
            )
        placement = _Unmoved(record)
    elif tuple(placement.input_size) != (height, width):
        raise ValueError(
            f"the placement is in inputs of {placement.input_size} pixels, the record of images of {(height, width)}"
        )
    if not 0 <= _checks.integer("index", index, minimum=0) < len(record.map):
        raise ValueError(f"index must be below {len(record.map)}, the number of images in the record; got {index}")
    whole = record.looks_at_all(index)
    ground = _resized(to_rgb(image) if whole else to_rgb(image).convert("L").convert("RGB"), zoom)
    scale = np.array(ground.size) / image.size
    picture = _colored(ground, record, index, placement, scale, opacity=0 if whole else OPACITY)
    for path in _outlines(record, index):
        path = placement.to_image(path) * scale
        if whole:
            path = _within(path, placement.to_image([[0, 0], [width, height]]) * scale, margin=_line_width(picture))
        # A thin line leaves a small object visible.
        picture = outlined(picture, path, width=min(_line_width(picture), round(np.ptp(path, axis=0).min() / 8)))
    return picture


def zoom_of(image: Image.Image, side: int) -> float:
    """Return the factor by which a small image is enlarged (a whole number) or a large one reduced."""
    zoom = side / max(image.size)
    return zoom if zoom < 1 else int(zoom)


def _resized(image: Image.Image, zoom: float) -> Image.Image:
    if zoom == 1:
        return image
    size = max(1, round(image.width * zoom)), max(1, round(image.height * zoom))
    return image.resize(size, Image.Resampling.NEAREST if zoom > 1 else Image.Resampling.LANCZOS)


def _colored(
    ground: Image.Image,
    record: AttentionRecord,
    index: int,
    placement: Place,
    scale: NDArray[np.float64],
    *,
    opacity: float,
) -> Image.Image:
    """Lay the colors of the map over what the network saw, and fade the rest."""
    values = record.map[index].double().numpy()
    cells, seen = [], []
    for axis, length in enumerate(ground.size):  # a resize and a crop: one coordinate does not depend on the other
        points = np.zeros((length, 2))
        points[:, axis] = (np.arange(length) + 0.5) / scale[axis]
        shares = placement.to_input(points)[:, axis] / record.image_size[1 - axis]  # 0 to 1 over the input
        cells.append(np.floor(shares * values.shape[1 - axis]).astype(int).clip(0, values.shape[1 - axis] - 1))
        seen.append((shares >= 0) & (shares < 1))
    low, high = record.scale.low, record.scale.high
    colors = _colors(((values - low) / (high - low)).clip(0, 1))
    colored = Image.blend(ground, Image.fromarray(colors[np.ix_(cells[1], cells[0])]), opacity)
    faded = Image.blend(ground, Image.new("RGB", ground.size, PALE), FADED)
    return Image.composite(colored, faded, Image.fromarray(np.outer(seen[1], seen[0]).astype(np.uint8) * 255))


def _outlines(record: AttentionRecord, index: int) -> list[NDArray[np.float64]]:
    """Return the closed paths to draw, ``(points, 2)`` each, in pixels of the network's input."""
    shape, size = np.array(record.map.shape[:0:-1]), np.array(record.image_size[::-1])
    position = None if record.query is None else np.array(record.position(record.query)[::-1])
    paths = []
    if record.rectangle is not None:
        paths.append(record.rectangle[index].double().numpy())
    if record.box is not None:
        rows, columns = record.positions(record.box)
        ends = np.array([(x, y) for x in (columns.start, columns.stop) for y in (rows.start, rows.stop)])
        paths.append(ends[[0, 2, 3, 1]] * size / shape)
    elif record.radius_image is not None:
        center = size / 2 if position is None else (position + 0.5) * size / shape
        angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        paths.append(center + np.array(record.radius_image) * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    elif position is not None:
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        paths.append((position + corners) * size / shape)
    return paths


def _within(path: NDArray[np.float64], frame: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """Return the part of a convex ``path`` that lies in ``frame``, its least and greatest x and y, less a margin."""
    margin = min(margin, (frame[1] - frame[0]).min() / 3)
    for axis in (0, 1):
        for sign, limit in ((1, frame[0, axis] + margin), (-1, frame[1, axis] - margin)):
            inside = sign * (path[:, axis] - limit)
            kept = []
            for here, there, a, b in zip(path, np.roll(path, -1, 0), inside, np.roll(inside, -1), strict=True):
                if a >= 0:
                    kept.append(here)
                if (a >= 0) != (b >= 0):
                    kept.append(here + (there - here) * a / (a - b))
            path = np.array(kept).reshape(-1, 2)
    return path


def draw_box(
    image: Image.Image,
    box: tuple[float, float, float, float],
    *,
    zoom: int = 1,
    color: tuple[int, int, int] = (255, 176, 0),
) -> Image.Image:
    """Return ``image`` enlarged ``zoom`` times, with the outline of ``box``: x_min, y_min, x_max, y_max in its pixels.

    The last two are exclusive, so that the outline runs along the outer edges of the box's pixels.

    Examples:
        >>> foveate.explain.draw_box(Image.new("RGB", (32, 24)), (4, 4, 12, 20), zoom=4).size
        (128, 96)
    """
    left, top, right, bottom = (side * zoom for side in box)
    picture = image.convert("RGB").resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    return outlined(picture, np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), color)


def palette_stops(number: int = 9, *, ground: int = 0) -> list[str]:
    """Return ``number`` colors from low to high as ``#rrggbb``, for a legend.

    They are the colors of `overlay` over pixels whose gray is ``ground``, from 0 (black) to 255 (white).

    Examples:
        >>> foveate.explain.palette_stops(3)
        ['#25012e', '#124f4d', '#8b7f14']
    """
    colors = OPACITY * _colors(np.linspace(0, 1, number)) + (1 - OPACITY) * ground
    return ["#" + "".join(f"{round(channel):02x}" for channel in color) for color in colors.tolist()]


def _colors(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the colors ``(…, 3)`` of places on the scale, from 0 at its low to 1 at its high end."""
    return matplotlib.colormaps[PALETTE](shares, bytes=True)[..., :3]


def _line_width(picture: Image.Image) -> int:
    return max(1, round(max(picture.size) / 100))


def outlined(
    picture: Image.Image,
    corners: NDArray[np.floating],
    color: tuple[int, int, int] = INK,
    *,
    width: int | None = None,
) -> Image.Image:
    """Draw a closed line through ``corners``, in ``color`` with a dark halo: visible on any ground.

    A corner at (0, 0) is the outer corner of the first pixel, one at (1, 1) the point where it meets its neighbors.
    """
    # Drawn larger and then reduced, to smooth the edges of thin lines.
    oversampling = min(4, max(1, round(4096 / max(picture.size))))
    large = (picture.width * oversampling, picture.height * oversampling)
    line = max(1, _line_width(picture) if width is None else width) * oversampling
    path = [(x, y) for x, y in (corners * oversampling - 0.5).tolist()]
    for ink, thickness in ((HALO, 2 * line), (color, line)):
        mask = Image.new("L", large)
        ImageDraw.Draw(mask).line([*path, *path[:2]], fill=255, width=thickness, joint="curve")
        mask = mask.reduce(oversampling)
        picture = Image.composite(Image.new("RGB", picture.size, ink), picture, mask)
    return picture
