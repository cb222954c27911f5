"""Uploaded files become images, or a message; samples are those of the test split."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data import ClutteredDigits
from foveate.data.given import read_upright
from foveate.demo.samples import MAX_SIDE, Uploads, draw_samples, read_upload

from .files import BAD, bomb, photograph


@pytest.mark.parametrize(("write", "message"), BAD.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_file_gets_a_message(tmp_path: Path, write: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(ValueError, match=f"This file cannot be shown: .*{message}") as raised:
        read_upload(write(tmp_path))
    assert str(tmp_path) not in str(raised.value)


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    path = bomb(tmp_path)
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than the"):
        read_upload(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**22


def test_an_image_is_turned_upright_and_reduced(tmp_path: Path) -> None:
    pixels = np.zeros((1500, 2000, 3), np.uint8)
    pixels[:750] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise: white is on the right
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    upright = read_upload(tmp_path / "turned.jpg").pixels
    assert upright.size == (MAX_SIDE * 3 // 4, MAX_SIDE)
    values = np.asarray(upright).mean((0, 2))
    assert values[:350].max() < 9
    assert values[-350:].min() > 246


def test_a_small_image_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.bmp")
    shown = read_upload(tmp_path / "small.bmp")
    assert np.array_equal(np.asarray(shown.pixels), pixels)
    assert shown.label is None


def test_the_photograph_of_a_telephone_is_one_photograph(tmp_path: Path) -> None:
    with Image.open(photograph(tmp_path)) as image:
        image = image.convert("RGB")
        preview = image.resize((64, 75))
        image.save(tmp_path / "telephone.jpg", format="MPO", save_all=True, append_images=[preview])
    assert read_upload(tmp_path / "telephone.jpg").pixels.size == image.size


def test_equal_files_of_several_visitors_are_one(tmp_path: Path) -> None:
    uploads, path = Uploads(), photograph(tmp_path)
    first = uploads.read(str(path))
    assert not path.exists()
    assert uploads.read(str(path)) is first
    again = photograph(tmp_path)
    other = uploads.read(str(again))  # uploaded once more
    assert other is not first
    assert np.array_equal(np.asarray(other.pixels), np.asarray(first.pixels))
    assert not again.exists()
    del first, other
    gc.collect()
    with pytest.raises(ValueError, match="cannot be shown"):
        uploads.read(str(path))


def test_samples_are_of_the_test_split() -> None:
    digits = ClutteredDigits("test", seed=5)
    samples = draw_samples(12, 5)
    assert [sample.label for sample in samples] == [*"0123456789", "0", "1"]
    for index in (0, 11):
        assert np.array_equal(np.asarray(samples[index].pixels), np.asarray(digits.sample(index).image))


def test_images_of_16_bits_are_shown_as_the_networks_see_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(29000, 31000, (37, 53)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "thermal.png")
    wanted = read_upright(tmp_path / "thermal.png", intensity_range=(29000, 31000))
    shown = Uploads((29000, 31000)).read(str(tmp_path / "thermal.png"))
    np.testing.assert_array_equal(np.asarray(shown.pixels), np.asarray(wanted))
