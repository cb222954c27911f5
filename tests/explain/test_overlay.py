"""Pictures, pixel by pixel: what is drawn lies where an independent computation says, on a scale that is fixed."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from foveate.explain import AttentionRecord, draw_box, overlay, palette_stops
from foveate.explain.overlay import OPACITY
from foveate.explain.records import GATE, RECEIVED

HEIGHT, WIDTH, ZOOM = 33, 55, 4


def record(values: torch.Tensor, **fields: object) -> AttentionRecord:
    return AttentionRecord("module", "Kind", values, **{"scale": GATE, "image_size": (HEIGHT, WIDTH), **fields})


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), (level, level, level))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


def distance_to_segment(x: np.ndarray, y: np.ndarray, a: tuple[float, float], b: tuple[float, float]) -> np.ndarray:
    along = np.clip(((x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])) / math.dist(a, b) ** 2, 0, 1)
    return np.hypot(x - a[0] - along * (b[0] - a[0]), y - a[1] - along * (b[1] - a[1]))


def centres(zoom: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the middle of each pixel of a picture, in image pixels."""
    y, x = np.mgrid[: HEIGHT * zoom, : WIDTH * zoom]
    return (x + 0.5) / zoom, (y + 0.5) / zoom


@pytest.mark.parametrize("value", [0.0, 0.37, 0.95, 1.0])
def test_a_flat_map_looks_flat(value: float) -> None:
    picture = pixels(overlay(grey(90), record(torch.full((1, 3, 5), value)), zoom=ZOOM))
    assert picture.shape == (HEIGHT * ZOOM, WIDTH * ZOOM, 3)
    assert (picture == picture[0, 0]).all()
    colour = np.array(matplotlib.colormaps["viridis"](value)[:3]) * 255
    assert np.abs(picture[0, 0] - (OPACITY * colour + (1 - OPACITY) * 90)).max() < 2


def test_nothing_is_scaled_to_the_range_of_one_image() -> None:
    """The same value has the same colour beside very different ones, in another image, and beyond the scale's end."""
    values = torch.tensor([[[1.0, 1.0], [1.0, 3.9]], [[1.0, 0.0], [9.0, 4.0]]])
    first, second = (pixels(overlay(grey(128), record(values, scale=RECEIVED), index)) for index in (0, 1))
    assert (first[0, 0] == second[0, 0]).all()
    assert np.abs(first[0, 0] - second[0, -1]).max() > 20
    assert (second[-1, 0] == second[-1, -1]).all()  # 9 looks like 4, as the scale says


def test_each_value_fills_its_part_of_the_image() -> None:
    values = torch.rand(1, 3, 5)
    picture = pixels(overlay(grey(40), record(values), zoom=ZOOM))
    for row in range(3):
        for column in range(5):
            part = picture[row * 44 : (row + 1) * 44, column * 44 : (column + 1) * 44]
            colour = np.array(matplotlib.colormaps["viridis"](values[0, row, column].item())[:3]) * 255
            assert np.abs(part - (OPACITY * colour + (1 - OPACITY) * 40)).max() < 2


def test_the_image_shows_through_in_grey() -> None:
    image = grey(0)
    image.putpixel((7, 5), (255, 255, 255))
    picture = pixels(overlay(image, record(torch.full((1, 3, 5), 0.5)), zoom=ZOOM))
    bright = picture.sum(-1) > picture[0, 0].sum() + 100
    rows, columns = np.nonzero(bright)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 23, 28, 31)
    assert bright.sum() == ZOOM**2


@pytest.mark.parametrize("angle", [0.0, 0.7, -1.2])
def test_the_rectangle_is_drawn_along_its_edges(angle: float) -> None:
    corners = []
    for u, v in ((-9, -5), (9, -5), (9, 5), (-9, 5)):
        x, y = u * math.cos(angle) - v * math.sin(angle), u * math.sin(angle) + v * math.cos(angle)
        corners.append((27 + x, 16 + y))
    flat = torch.full((1, 3, 5), 0.2)
    plain = pixels(overlay(grey(60), record(flat), zoom=ZOOM))
    picture = pixels(overlay(grey(60), record(flat, rectangle=torch.tensor([corners])), zoom=ZOOM))
    x, y = centres(ZOOM)
    distance = np.min([distance_to_segment(x, y, corners[i], corners[(i + 1) % 4]) for i in range(4)], axis=0)
    changed = (picture != plain).any(-1)
    assert not changed[distance > 0.75].any()  # the halo is 4 pixels of the picture wide: 0.5 to each side
    assert (picture[distance < 0.1].min(-1) > 150).all()  # white ink on the edge itself, the corners included


@pytest.mark.parametrize(
    ("query", "centre"),
    [(None, (27.5, 16.5)), ((0, 54), (49.5, 5.5)), ((12, 30), (27.5, 16.5))],  # the middle of the cell that attends
)
def test_the_radius_is_a_circle_around_the_position_that_attends(query: tuple | None, centre: tuple) -> None:
    flat = torch.full((1, 3, 5), 0.2)
    plain = pixels(overlay(grey(60), record(flat), zoom=ZOOM))
    fields = {"query": query, "radius": 0.5, "radius_image": (5.5, 5.5)}
    picture = pixels(overlay(grey(60), record(flat, **fields), zoom=ZOOM))
    x, y = centres(ZOOM)
    distance = np.abs(np.hypot(x - centre[0], y - centre[1]) - 5.5)
    assert not (picture != plain).any(-1)[distance > 0.8].any()
    assert (picture[distance < 0.1].min(-1) > 150).all()


def test_the_box_runs_along_the_outer_edges_of_its_pixels() -> None:
    box = (10, 4, 31, 20)
    picture = pixels(draw_box(grey(100), box, zoom=ZOOM))
    x, y = centres(ZOOM)
    corners = [(10, 4), (31, 4), (31, 20), (10, 20)]
    distance = np.min([distance_to_segment(x, y, corners[i], corners[(i + 1) % 4]) for i in range(4)], axis=0)
    assert (picture[distance > 0.75] == 100).all()
    assert (picture[distance < 0.15] != 100).any(-1).all()


def test_the_legend_has_the_colours_of_the_pictures() -> None:
    for ground in (0, 255):
        stops = palette_stops(3, ground=ground)
        for value, stop in zip((0.0, 0.5, 1.0), stops, strict=True):
            drawn = pixels(overlay(grey(ground), record(torch.full((1, 2, 2), value))))[0, 0]
            legend = [int(stop[start : start + 2], 16) for start in (1, 3, 5)]
            assert np.abs(drawn - legend).max() <= 1


def test_bad_input_is_refused() -> None:
    flat = record(torch.zeros(2, 3, 5))
    overlay(grey(0), flat, 1)
    with pytest.raises(ValueError, match="images of 33×55 pixels; got one of 10×12"):
        overlay(Image.new("RGB", (12, 10)), flat)
    with pytest.raises(ValueError, match="index must be below 2"):
        overlay(grey(0), flat, 2)
    with pytest.raises(ValueError, match="zoom must be a finite number above 0"):
        overlay(grey(0), flat, zoom=0)


@pytest.mark.parametrize(
    ("corners", "share"),
    [
        ([(-3, -2), (60, -2), (60, 40), (-3, 40)], 1),
        ([(11, -2), (60, -2), (60, 40), (11, 40)], 44 / 55),
        ([(0, 0), (55, 0), (55, 31.35), (0, 31.35)], 0.95),
        ([(27.5, -11), (82.5, 16.5), (27.5, 44), (-27.5, 16.5)], 1 - 2 * (16.5 * 33 - 22 * 11) / (55 * 33)),
    ],
)
def test_the_share_of_the_image_that_a_rectangle_covers(corners: list[tuple[float, float]], share: float) -> None:
    """Also of an inclined one: the last is a rhombus that cuts four corners off, two pairs of equal triangles."""
    found = record(torch.ones(1, 3, 5), rectangle=torch.tensor([corners]))
    if share not in (1, 44 / 55, 0.95):
        x, y = centres(16)
        inside = np.abs(x - 27.5) / 55 + np.abs(y - 16.5) / 27.5 <= 1
        share = inside.mean()
    assert found.covered is not None
    assert found.covered.item() == pytest.approx(share, abs=0.011)
    assert found.looks_at_all() == (share > 0.94)
    assert record(torch.ones(1, 3, 5)).covered is None
    assert not record(torch.ones(1, 3, 5)).looks_at_all()


def test_a_rectangle_that_covers_the_picture_is_its_outline_alone() -> None:
    """The picture keeps its colours; a line runs along its edges, and where a corner is cut off, along the cut."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    corners = torch.tensor([[(-20.0, -20.0), (WIDTH, -20.0), (WIDTH + 20, HEIGHT + 20.0), (-20.0, HEIGHT + 20.0)]])
    values = torch.full((1, 3, 5), 0.8)
    picture = pixels(overlay(image, record(values, rectangle=corners), zoom=ZOOM))
    own = pixels(image.resize((WIDTH * ZOOM, HEIGHT * ZOOM), Image.Resampling.NEAREST))
    line = 3 * ZOOM
    assert np.array_equal(picture[line:-line, line:-line], own[line:-line, line:-line])
    for edge in (picture[:line], picture[-line:], picture[:, :line], picture[:, -line:]):
        bright = (edge > 250).all(-1)
        assert bright.any(int(np.argmin(edge.shape[:2]))).mean() > 0.95  # a white line along the whole of it
    part = pixels(overlay(image, record(values, rectangle=corners - 20), zoom=ZOOM))
    assert not np.array_equal(part[line:-line, line:-line], own[line:-line, line:-line])
