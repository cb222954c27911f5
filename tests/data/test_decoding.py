from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.data.decoded import coloured, ramp, saved

from foveate.data import UnreadableImageError
from foveate.data.decoding import naming, read_image
from foveate.data.folder import EXTENSIONS
from foveate.data.given import read_upright, upright_rgb, upright_size


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
        (lambda: b"this is a note, not a picture\n", r"not an image in a format that is read \(JPEG, PNG, PPM, "),
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


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA", "EPS", "PDF", "ICNS"])
def test_formats_outside_of_the_list_are_not_decoded(tmp_path: Path, kind: str):
    path = tmp_path / "image.png"
    coloured().resize((64, 64)).save(path, kind)
    with pytest.raises(UnreadableImageError, match=r"image.png: this is not an image in a format that is read"):
        read_image(path)


def test_every_ending_has_its_format(tmp_path: Path):
    for ending in EXTENSIONS:
        kinds = {".pjpeg": "JPEG", ".pjp": "JPEG", ".jpe": "JPEG", ".pnm": "PPM", ".apng": "PNG", ".dib": "BMP"}
        options = {"format": kinds[ending]} if ending in kinds else {}
        assert saved(coloured().resize((64, 48)), tmp_path / f"x{ending}", **options).shape == (48, 64, 3)


def bomb(width: int, height: int) -> bytes:
    """Return a PNG whose head promises so many pixels, of which it has none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("size", "reason"), [((8193, 8192), "more than the 67108864"), ((20_000, 10_000), "bomb")])
def test_too_many_pixels_are_refused_from_the_head(tmp_path: Path, size: tuple[int, int], reason: str):
    path = tmp_path / "x.png"
    path.write_bytes(bomb(*size))
    with pytest.raises(UnreadableImageError, match=f"x.png: .*{reason}"):
        read_image(path)
    path.write_bytes(bomb(8192, 8192))  # this one would be decoded, and is found to be cut short
    with pytest.raises(UnreadableImageError, match=r"x.png: .*truncated"):
        read_image(path)


def test_the_cap_can_be_chosen(tmp_path: Path):
    coloured().save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", max_pixels=35).size == (5, 7)
    with pytest.raises(UnreadableImageError, match=r"x.png: 5×7 pixels are more than the 34 that are decoded"):
        read_image(tmp_path / "x.png", max_pixels=34)
    with pytest.raises(ValueError, match="max_pixels must be at least 1"):
        read_image(tmp_path / "x.png", max_pixels=0)


def test_an_open_file_is_read_and_named():
    np.testing.assert_array_equal(
        np.asarray(read_image(io.BytesIO(jpeg("PNG")))), np.asarray(coloured().resize((90, 70)))
    )
    with pytest.raises(UnreadableImageError, match=r"cannot read image shard.tar/7.jpg: this is not an image"):
        read_image(io.BytesIO(b"words"), name="shard.tar/7.jpg")


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImageError, match=r"x.jpg: this is a pipe"):
        read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_read(tmp_path: Path, kind: str):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "x", kind, save_all=True, append_images=frames[1:], lossless=True)
    read = np.asarray(read_image(tmp_path / "x"))
    assert (read == (255, 0, 0)).all()


def test_a_transparent_colour_shows_white(tmp_path: Path):
    image = Image.new("RGB", (6, 4), (200, 100, 50))
    image.paste((1, 2, 3), (0, 0, 3, 4))
    read = saved(image, tmp_path / "x.png", transparency=(1, 2, 3))
    assert (read[:, :3] == 255).all()
    assert (read[:, 3:] == (200, 100, 50)).all()


def test_a_missing_file_and_a_folder(tmp_path: Path):
    with pytest.raises(UnreadableImageError, match=r"gone.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UnreadableImageError, match=r": Is a directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_tag_is_not_applied(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(saved(coloured(), tmp_path / "x.png", exif=exif), np.asarray(coloured()))
    coloured().save(tmp_path / "x.jpg", exif=exif)
    image = read_image(tmp_path / "x.jpg")
    np.testing.assert_array_equal(np.asarray(upright_rgb(image)), np.asarray(image))  # nor later, by hand


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_an_upright_image_is_known_from_its_head(tmp_path: Path, ending: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (60, 40)).save(tmp_path / f"x.{ending}", exif=exif)
    image = read_upright(tmp_path / f"x.{ending}")
    assert upright_size(tmp_path / f"x.{ending}") == (image.height, image.width)
    assert image.width == (60 if orientation < 5 else 40)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_a_damaged_tag_leaves_the_image_as_it_is(tmp_path: Path, ending: str):
    path = tmp_path / f"x.{ending}"
    Image.new("RGB", (60, 40), "red").save(
        path, exif=b"Exif\0\0garbage!", **({"dpi": (72, 72)} if ending == "jpg" else {})
    )
    assert read_upright(path).size == (60, 40)
    assert upright_size(path) == (40, 60)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(upright_rgb(image)), np.asarray(read_upright(path)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UnreadableImageError):
        read_upright(path)


@pytest.mark.parametrize("orientation", range(1, 10))
def test_images_are_turned_as_pillow_turns_them(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as image:
        wanted = ImageOps.exif_transpose(image)
    found = read_upright(path)
    assert np.array_equal(np.asarray(found), np.asarray(wanted))
    assert np.array_equal(np.asarray(upright_rgb(found)), np.asarray(wanted))  # not turned twice
    assert upright_size(path) == (found.height, found.width)


def test_want_of_memory_is_not_the_fault_of_an_image():
    with pytest.raises(MemoryError), naming("x.png"):
        raise MemoryError
    with pytest.raises(UnreadableImageError), naming("x.png"):
        raise RecursionError
