from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.data import TransformConfig, make_transform, placement
from foveate.data.fitting import fitted_size

CONFIG = TransformConfig(crop_pct=1.0, interpolation="bilinear", fit="pad")


@pytest.mark.parametrize(
    ("image", "size", "expected"),
    [
        ((53, 37), (41, 47), (41, 29)),
        ((37, 53), (41, 47), (33, 47)),
        ((10, 10), (30, 20), (20, 20)),
        ((2, 3000), (32, 64), (1, 64)),
        ((41, 47), (41, 47), (41, 47)),
    ],
)
def test_the_whole_image_fits(image: tuple[int, int], size: tuple[int, int], expected: tuple[int, int]):
    assert fitted_size(image, size) == expected


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("height", "width"), [(29, 61), (61, 31), (7, 59)])
@pytest.mark.parametrize("size", [(97, 83), (23, 31)])
def test_placement_says_where_the_pixels_of_a_padded_image_are(
    height: int, width: int, size: tuple[int, int], training: bool
):
    config = CONFIG.replace(img_size=size, crop="none", hflip=0.0, color_jitter=0.0)
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([4 * x, 4 * y, np.full_like(x, 200)], 2).astype(np.uint8)
    tensor = make_transform(config, training=training)(Image.fromarray(ramps))
    place = placement(config, (height, width))
    right, bottom = place.to_input([width, height]).round(9)
    assert max(right / size[1], bottom / size[0]) == 1
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = (columns < right) & (rows < bottom)
    assert (tensor[:, torch.tensor(~inside)] == 0).all()  # the mean color, exactly
    pixels = tensor * torch.tensor(config.std).view(3, 1, 1) + torch.tensor(config.mean).view(3, 1, 1)
    red, green, blue = (255 * pixels).numpy()
    np.testing.assert_allclose(blue[inside], 200, atol=0.01)
    points = place.to_image(np.stack([columns, rows], 2) + 0.5)
    for values, axis, length in ((red, 0, width), (green, 1, height)):
        middle = inside & (points[..., axis] > 2) & (points[..., axis] < length - 2)  # edges have fewer neighbors
        np.testing.assert_allclose(values[middle], 4 * (points[..., axis][middle] - 0.5), atol=1.01)


def test_a_whole_image_is_not_cropped():
    with pytest.raises(ValueError, match="crop_pct"):
        CONFIG.replace(crop_pct=0.9)
    with pytest.raises(ValueError, match="fit"):
        CONFIG.replace(fit="stretch")


def test_a_random_resized_crop_enlarges_nothing():
    with pytest.raises(ValueError, match="scale"):
        make_transform(CONFIG.replace(scale=(0.5, 2.0)), training=True)
    with pytest.raises(ValueError, match="scale"):
        CONFIG.replace(scale=(0.5, 9.0))
    make_transform(CONFIG.replace(scale=(0.5, 2.0)), training=False)
