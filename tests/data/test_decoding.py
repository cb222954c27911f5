from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data import UnreadableImageError
from foveate.data.decoding import read_image


def ramp() -> Image.Image:
    """Return 5×7 pixels of grey from 0 to 238."""
    return Image.fromarray((np.arange(35, dtype=np.uint8) * 7).reshape(7, 5))


def coloured() -> Image.Image:
    return Image.merge("RGB", (ramp(), ramp().point(lambda v: 255 - v), ramp().point(lambda v: v // 2)))


def saved(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    image.save(path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_image(path)
    assert read.mode == "RGB"
    return np.asarray(read)


def test_rgb_is_unchanged(tmp_path: Path):
    np.testing.assert_array_equal(saved(coloured(), tmp_path / "x.png"), np.asarray(coloured()))


def test_greyscale_is_repeated(tmp_path: Path):
    expected = np.repeat(np.asarray(ramp())[..., None], 3, axis=2)
    np.testing.assert_array_equal(saved(ramp(), tmp_path / "x.png"), expected)


def test_one_bit(tmp_path: Path):
    bits = ramp().point(lambda v: 255 * (v > 100)).convert("1")
    np.testing.assert_array_equal(saved(bits, tmp_path / "x.png")[..., 1], 255 * (np.asarray(ramp()) > 100))


def test_sixteen_bits_keep_their_whole_range(tmp_path: Path):
    values = (np.arange(35, dtype=np.uint16) * 1900).reshape(7, 5)
    for number, image in enumerate((Image.fromarray(values), Image.fromarray(values.astype(">u2")))):
        read = saved(image, tmp_path / f"{number}.tif")
        np.testing.assert_allclose(read[..., 2], values / 65535 * 255, atol=0.5)
    np.testing.assert_allclose(saved(Image.fromarray(values), tmp_path / "x.png")[..., 0], values / 257, atol=0.5)
    wide = Image.fromarray(values.astype(np.int32))
    np.testing.assert_allclose(saved(wide, tmp_path / "wide.tif")[..., 0], values / 257, atol=0.5)


def test_a_palette_gives_its_colours(tmp_path: Path):
    image = coloured().quantize(256)
    np.testing.assert_array_equal(saved(image, tmp_path / "x.gif"), np.asarray(image.convert("RGB")))


def test_cmyk(tmp_path: Path):
    expected = np.asarray(coloured()).astype(int)
    for name in ("x.tif", "x.jpg"):
        smooth = coloured().resize((80, 112), Image.Resampling.BILINEAR)
        read = saved(smooth.convert("CMYK"), tmp_path / name, **({"quality": 100} if name == "x.jpg" else {}))
        np.testing.assert_allclose(read, np.asarray(smooth), atol=6)
    assert np.ptp(expected) > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(tmp_path: Path, mode: str):
    image = Image.new("RGBA", (6, 4), (200, 200, 200, 255))
    image.paste((10, 10, 10, 0), (0, 0, 3, 4))  # hidden: nearly black, and wholly transparent
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        image = Image.new("P", (6, 4), 1)
        image.putpalette([10, 10, 10, 200, 200, 200])
        image.paste(0, (0, 0, 3, 4))
        read = saved(image, tmp_path / "x.png", transparency=b"\x00\xff")
    else:
        read = saved(image, tmp_path / "x.png")
    assert (read[:, :3] == 255).all()
    assert (read[:, 3:] == 200).all()


def test_half_transparent_is_mixed_with_white(tmp_path: Path):
    read = saved(Image.new("RGBA", (3, 3), (0, 100, 255, 128)), tmp_path / "x.png")
    np.testing.assert_allclose(read[0, 0], 255 * (1 - 128 / 255) + np.array([0, 100, 255]) * 128 / 255, atol=1)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 70_000]], np.int32), "integer pixels from 0 to 70000 have no defined range"),
        (np.array([[-1, 5]], np.int32), "integer pixels from -1 to 5 have no defined range"),
        (np.array([[0.0, 0.7]], np.float32), "floating-point pixels have no defined range"),
    ],
)
def test_pixels_without_a_range_are_refused(tmp_path: Path, values: np.ndarray, reason: str):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read_image(tmp_path / "x.tif")
    assert caught.value.bad.path == str(tmp_path / "x.tif")


def jpeg(kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    coloured().resize((90, 70)).save(buffer, kind)
    return buffer.getvalue()


def flipped_bits(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - value for value in data[middle : middle + 40]) + data[middle + 40 :]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "the file is empty"),
        (lambda: b"this is a note, not a picture\n", "not an image in a format that Pillow knows"),
        (lambda: jpeg()[: len(jpeg()) // 2], "truncated"),
        (lambda: jpeg("PNG")[: len(jpeg("PNG")) // 2], "truncated"),
        (lambda: flipped_bits(jpeg("PNG")), "."),
    ],
)
def test_damaged_files_are_named_with_the_reason(tmp_path: Path, content: Callable[[], bytes], reason: str):
    path = tmp_path / "image.jpg"
    path.write_bytes(content())
    with pytest.raises(UnreadableImageError, match=f"(?i)cannot read image .*image.jpg: .*{reason}"):
        read_image(path)


def test_a_missing_file_and_a_folder(tmp_path: Path):
    with pytest.raises(UnreadableImageError, match=r"gone.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UnreadableImageError, match=r": Is a directory"):
        read_image(tmp_path)
