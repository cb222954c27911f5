"""Boxes on a picture: each outlined where it lies, names that can be read."""

from __future__ import annotations

import numpy as np
from PIL import Image

from foveate.explain.painting import boxed, class_color, key_of_colors, object_color


def count(picture: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == color).all(-1).sum())


def test_a_name_that_would_cover_a_surer_one_is_left_away() -> None:
    image, box, far = Image.new("RGB", (300, 200)), (40.0, 80.0, 200.0, 180.0), (210.0, 80.0, 290.0, 180.0)
    alone = boxed(image, [box], ["first 0.9"], [0], 300)
    both = boxed(image, [box, box], ["first 0.9", "second 0.8"], [0, 1], 300)
    above = (slice(0, 79), slice(0, 300))  # where names stand
    np.testing.assert_array_equal(np.asarray(both)[above], np.asarray(alone)[above])
    apart = boxed(image, [box, far], ["first 0.9", "second 0.8"], [0, 1], 300)
    assert count(apart.crop((0, 0, 300, 79)), object_color(1)) > 100


def test_a_long_name_does_not_run_out_of_a_key() -> None:
    name = "a class of which somebody has written everything that can be said into the very name of its folder"
    key = {f"{name} {index} to the end": class_color(index) for index in (1, 2)}
    narrow = np.asarray(key_of_colors(key, size=10, width=150))
    assert (narrow[:, -3:] == 255).all()
    assert [count(Image.fromarray(narrow), color) > 100 for color in key.values()] == [True, True]
