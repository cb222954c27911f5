"""Overlays on the original: of any size, aspect ratio and mode, with everything where an independent look puts it."""

from __future__ import annotations

import cmath
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch import nn
from torchvision import transforms

from foveate.data import TransformConfig, make_transform, placement
from foveate.explain import AttentionRecord, attention_records, overlay
from foveate.explain.overlay import FADED, OPACITY, PALE
from foveate.explain.records import GATE, QUERIED
from foveate.nn import RectangularAttention2d
from tests.explain.test_overlay import distance_to_segment, pixels


def record(values: torch.Tensor, size: tuple[int, int], **fields: object) -> AttentionRecord:
    return AttentionRecord("module", "Kind", values, **{"scale": GATE, "image_size": size, **fields})


def random_case(rng: random.Random) -> tuple[tuple[int, int], TransformConfig]:
    """Draw the size of an image, 150 to 1200 pixels a side, and how it is prepared."""
    size = (rng.randint(150, 1200), rng.randint(150, 1200))
    side = rng.choice([80, 97, 160, 224])
    img_size = (side, side) if rng.random() < 0.6 else (side, rng.choice([96, 131, 190]))
    crop_pct = rng.choice([1.0, 0.95, 0.9, 0.875, 0.6])
    fit = rng.choice(["crop", "squash"])
    return size, TransformConfig(img_size=img_size, crop_pct=crop_pct, interpolation="bilinear", fit=fit)


def where_it_came_from(size: tuple[int, int], config: TransformConfig, axis: int) -> tuple[float, float]:
    """Return the image's x (or y) at the edges of the input, by sending a ramp through timm's own transform.

    The pixels of the ramp hold their own coordinate, in floating point; the network's input then holds where each of
    its pixels came from.
    """
    ramp = np.broadcast_to(np.arange(size[axis]) + 0.5, size) if axis else (np.arange(size[0]) + 0.5)[:, None]
    image = Image.fromarray(np.broadcast_to(ramp, size).astype(np.float32))
    mode = {"crop": "center", "squash": "squash"}[config.fit]
    whole = create_transform(
        config.img_size, interpolation=config.interpolation, crop_pct=config.crop_pct, crop_mode=mode
    )
    moved = np.asarray(transforms.Compose(whole.transforms[:2])(image), np.float64)
    line = moved[moved.shape[0] // 2] if axis else moved[:, moved.shape[1] // 2]
    # Away from the edges of the image, where the filter is cut off, it is a straight line, up to the filter's ripple.
    kept = slice(len(line) // 10, len(line) - len(line) // 10)
    slope, offset = np.polyfit(np.arange(len(line))[kept] + 0.5, line[kept], 1)
    return offset, offset + len(line) * slope


@pytest.mark.parametrize("seed", range(50))
def test_corners_lie_in_the_original_where_timms_own_transform_says(seed: int) -> None:
    """To 1e-4 of the image's side, at random sizes and aspect ratios."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    size, config = random_case(rng)
    module = RectangularAttention2d(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    tensor = make_transform(config, training=False)(Image.fromarray(noise))[None]
    (found,) = attention_records(nn.Sequential(nn.AvgPool2d(2), module), tensor)
    corners = placement(config, size).to_image(found.rectangle[0].numpy())

    (left, right), (top, bottom) = (where_it_came_from(size, config, axis) for axis in (1, 0))
    cx, cy, sx, sy, angle = found.numbers[0].tolist()
    turn = cmath.exp(1j * angle)
    for (x, y), (u, v) in zip(corners.tolist(), ((-1, -1), (1, -1), (1, 1), (-1, 1)), strict=True):
        z = complex(cx, cy) + turn * complex(u * sx, v * sy)  # −1 and 1 are the edges of the input
        assert abs(x - (left + (z.real + 1) / 2 * (right - left))) < 1e-4 * size[1]
        assert abs(y - (top + (z.imag + 1) / 2 * (bottom - top))) < 1e-4 * size[0]


def test_the_rectangle_in_pixels_of_the_input() -> None:
    """Centre, sides and angle against trigonometry, on square inputs, where a rectangle stays one."""
    torch.manual_seed(1)
    module = RectangularAttention2d(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    (found,) = attention_records(module, torch.randn(20, 3, 36, 36))
    shape = found.shape
    for index, (cx, cy, sx, sy, angle) in enumerate(found.numbers.tolist()):
        assert shape.center[index].tolist() == pytest.approx([18 * (cx + 1), 18 * (cy + 1)], abs=1e-3)
        assert shape.sides[index].tolist() == pytest.approx([36 * sx, 36 * sy], rel=1e-4)
        assert -math.pi / 2 < shape.angle[index] <= math.pi / 2
        assert math.sin(shape.angle[index] - angle) == pytest.approx(0, abs=1e-4)  # the same up to half turns
    assert record(torch.zeros(1, 2, 2), (4, 4)).shape is None


def test_gates_are_resampled_to_the_pixels_of_the_input() -> None:
    values = torch.rand(2, 3, 5)
    found = record(values, (33, 55))
    assert torch.equal(found.resampled(), values.repeat_interleave(11, 1).repeat_interleave(11, 2))
    smooth = found.resampled("bilinear")
    assert smooth.shape == (2, 33, 55)
    torch.testing.assert_close(smooth[:, 5::11, 5::11], values)


SIZES = [((97, 131), 64, 0.875), ((40, 400), 32, 1.0), ((301, 299), (48, 80), 0.9), ((20, 20), 64, 0.875)]


@pytest.mark.parametrize(("size", "img_size", "crop_pct"), SIZES, ids=str)
def test_every_pixel_has_the_colour_of_its_place_in_the_input(
    size: tuple[int, int], img_size: int | tuple[int, int], crop_pct: float
) -> None:
    """Colour where the network saw it, faded grey where it did not; the picture has the image's own size."""
    config = TransformConfig(img_size=img_size, crop_pct=crop_pct)
    place = placement(config, size)
    values = torch.zeros(1, 3, 4)
    values[0, 1, 2] = 1
    image = Image.new("RGB", size[::-1], (80, 80, 80))
    found = record(values, place.input_size)
    picture = pixels(overlay(image, found, placement=place))
    assert picture.shape == (*size, 3)
    low, high = (pixels(overlay(Image.new("RGB", (4, 4), (80, 80, 80)), record(torch.full((1, 1, 1), v), (4, 4))))[0, 0]
                 for v in (0.0, 1.0))  # fmt: skip
    faded = 80 + FADED * (PALE[0] - 80)
    height, width = place.input_size
    for y in range(0, size[0], 3):
        for x in range(0, size[1], 3):
            column, row = place.to_input([x + 0.5, y + 0.5])
            if not (0 <= column < width and 0 <= row < height):
                expected = np.full(3, faded)
            else:
                lit = width / 2 <= column < 3 * width / 4 and height / 3 <= row < 2 * height / 3
                expected = high if lit else low
            assert np.abs(picture[y, x] - expected).max() <= 1.5, (x, y)


def test_a_flat_map_is_one_flat_colour_in_any_crop() -> None:
    colours = set()
    for size in ((97, 131), (211, 64)):
        place = placement(TransformConfig(img_size=64), size)
        found = record(torch.full((1, 7, 5), 0.4), (64, 64))
        picture = overlay(Image.new("L", size[::-1], 120), found, placement=place)
        counts = picture.getcolors()
        assert len(counts) == 2
        colours.add(max(colour for _, colour in counts))
        colours.add(min(colour for _, colour in counts))
    assert len(colours) == 2  # the colour of 0.4, and faded grey


def test_the_rectangle_is_drawn_in_the_original_beyond_what_was_seen() -> None:
    place = placement(TransformConfig(img_size=64, crop_pct=0.8), (200, 300))
    corners = torch.tensor([[[-20.0, 10.0], [50.0, -5.0], [62.0, 51.0], [-8.0, 66.0]]])
    flat = record(torch.full((1, 2, 2), 0.2), (64, 64), rectangle=corners)
    image = Image.new("RGB", (300, 200), (60, 60, 60))
    plain = pixels(overlay(image, record(flat.map, (64, 64)), placement=place))
    picture = pixels(overlay(image, flat, placement=place))
    drawn = [tuple(corner) for corner in place.to_image(corners[0].numpy())]
    y, x = np.mgrid[:200, :300] + 0.5
    distance = np.min([distance_to_segment(x, y, drawn[i], drawn[(i + 1) % 4]) for i in range(4)], axis=0)
    assert not (picture != plain).any(-1)[distance > 4.5].any()
    assert (picture[distance < 0.5].min(-1) > 200).all()
    assert (distance[:, :40] < 0.5).any()  # it does reach into the margin


def test_the_position_that_attends_is_outlined() -> None:
    found = record(torch.ones(1, 4, 8), (64, 64), scale=QUERIED, query=(33, 20))
    image = Image.new("RGB", (64, 64))
    plain = pixels(overlay(image, record(found.map, (64, 64), scale=QUERIED), zoom=4))
    picture = pixels(overlay(image, found, zoom=4))
    y, x = (np.mgrid[:256, :256] + 0.5) / 4
    corners = [(16, 32), (24, 32), (24, 48), (16, 48)]
    distance = np.min([distance_to_segment(x, y, corners[i], corners[(i + 1) % 4]) for i in range(4)], axis=0)
    assert not (picture != plain).any(-1)[distance > 1].any()
    assert (picture[distance < 0.1].min(-1) > 150).all()


def image_of_mode(mode: str) -> Image.Image:
    """Make the same light-left, dark-right image in a mode."""
    levels = np.broadcast_to(np.linspace(220, 30, 60), (40, 60)).round().astype(np.uint8)
    grey = Image.fromarray(levels)
    if mode == "I;16":
        return Image.fromarray(levels.astype(np.uint16) * 257)
    if mode == "P":
        return grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    if mode in ("RGBA", "LA"):
        image = grey.convert(mode)
        image.putalpha(Image.fromarray(np.where(np.arange(60) < 50, 255, 0).astype(np.uint8)[None].repeat(40, 0)))
        return image
    return grey.convert(mode)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16", "YCbCr", "HSV", "1"])
def test_images_of_any_mode(mode: str) -> None:
    """The picture is that of the same image in RGB; what is transparent is as white as the page."""
    found = record(torch.rand(1, 3, 4), (40, 60))
    reference = image_of_mode("RGB")
    if mode in ("RGBA", "LA"):
        reference.paste((255, 255, 255), (50, 0, 60, 40))
    if mode == "1":
        reference = reference.convert("1").convert("RGB")
    difference = pixels(overlay(image_of_mode(mode), found)) - pixels(overlay(reference, found))
    assert np.abs(difference).max() <= (1.5 if mode != "HSV" else 3)


def test_large_images_are_reduced_and_small_ones_enlarged() -> None:
    image = Image.effect_noise((301, 199), 50)
    found = record(torch.rand(1, 3, 4), (199, 301))
    for zoom, size in ((0.25, (75, 50)), (1, (301, 199)), (3, (903, 597))):
        assert overlay(image, found, zoom=zoom).size == size
    flat = record(torch.full((1, 3, 4), 0.5), (199, 301))
    small = overlay(Image.new("L", (301, 199), 99), flat, zoom=0.25)
    assert small.getcolors() == [(75 * 50, small.getpixel((0, 0)))]
    assert abs(small.getpixel((0, 0))[1] - (OPACITY * 144 + (1 - OPACITY) * 99)) < 2  # viridis at 0.5 has green 144


def test_bad_input_is_refused() -> None:
    place = placement(TransformConfig(img_size=64), (100, 100))
    found = record(torch.zeros(1, 2, 2), (32, 32))
    with pytest.raises(
        ValueError, match=r"the placement is in inputs of \(64, 64\).*the record of images of \(32, 32\)"
    ):
        overlay(Image.new("L", (100, 100)), found, placement=place)
    with pytest.raises(ValueError, match="give its placement"):
        overlay(Image.new("L", (100, 100)), found)
