"""Grey of more than 8 bits: its range as it is declared, asked for, or unknown."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from tests.data.decoded import coloured, saved
from tests.data.dense.made import write_masks, write_voc, xml

from foveate.commands.shards import ShardsConfig, run
from foveate.data import UnreadableImageError, open_data
from foveate.data.decoding import open_image, read_image, to_rgb
from foveate.data.dense import open_detection, open_segmentation

DEEP = (np.arange(35, dtype=np.uint16) * 120).reshape(7, 5)


"""Grey of 12 bits, from 0 to 4,080."""


def twelve_bits(values: np.ndarray) -> bytes:
    """Return a TIFF of 12 bits per pixel, two in three bytes, as cameras and microscopes write it."""
    height, width = values.shape
    padded = np.zeros((height, width + width % 2), np.uint16)
    padded[:, :width] = values
    one, two = padded[:, ::2], padded[:, 1::2]
    rows = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], axis=2).astype(np.uint8)
    rows = rows.reshape(height, -1)[:, : (12 * width + 7) // 8]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {256: width, 257: height, 258: 12, 259: 1, 262: 1, 277: 1, 278: height, 279: rows.size}.items():
        tags[tag] = value
    tags[273] = 0  # from the end of the directory, which Pillow adds
    buffer = io.BytesIO()
    tags.save(buffer)
    return buffer.getvalue() + rows.tobytes()


def test_twelve_bits_are_scaled_by_the_declared_bits(tmp_path: Path):
    (tmp_path / "x.tif").write_bytes(twelve_bits(DEEP))
    read = np.asarray(read_image(tmp_path / "x.tif"))
    np.testing.assert_allclose(read[..., 0], DEEP / 4095 * 255, atol=0.5)
    assert (read[..., 1] == read[..., 2]).all()


@pytest.mark.parametrize(
    ("largest", "white"), [(4095, 4095), (16383, 16383), (65535, 65535), (4080, 65535), (200, 65535), (None, 65535)]
)
def test_sixteen_bits_with_a_declared_largest_value(tmp_path: Path, largest: int | None, white: int):
    """What is not of the form 2ⁿ-1 is a statistic of the image, and no scale."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if largest is not None:
        tags[281] = largest
    read = saved(Image.fromarray(DEEP), tmp_path / "x.tif", tiffinfo=tags)
    np.testing.assert_allclose(read[..., 0], DEEP / white * 255, atol=0.5)


def test_values_beyond_the_declared_ones_are_refused(tmp_path: Path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 1023
    Image.fromarray(DEEP).save(tmp_path / "x.tif", tiffinfo=tags)
    with pytest.raises(UnreadableImageError, match=r"from 0 to 4080 .* 0 to 1023"):
        read_image(tmp_path / "x.tif")


def test_a_turned_copy_keeps_the_declared_bits(tmp_path: Path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 4095
    Image.fromarray(DEEP).save(tmp_path / "x.tif", tiffinfo=tags)
    with open_image(tmp_path / "x.tif") as image:
        turned = to_rgb(image.transpose(Image.Transpose.ROTATE_90))
    np.testing.assert_array_equal(np.rot90(np.asarray(read_image(tmp_path / "x.tif"))), np.asarray(turned))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_range_of_intensities_is_stretched(tmp_path: Path, kind: type):
    values = (DEEP + 1000).astype(kind)
    Image.fromarray(values).save(tmp_path / "x.tif")
    read = np.asarray(read_image(tmp_path / "x.tif", intensity_range=(2000, 3000)))
    expected = np.clip((values.astype(np.float64) - 2000) / 1000, 0, 1) * 255
    np.testing.assert_allclose(read[..., 0], expected, atol=0.51)
    coloured().save(tmp_path / "x.png")
    plain = np.asarray(read_image(tmp_path / "x.png", intensity_range=(2000, 3000)))
    np.testing.assert_array_equal(plain, np.asarray(coloured()))


def thermal(folder: Path, offset: int, scale: int) -> Path:
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for i in range(5):
            Image.fromarray((DEEP // 120 * scale + offset + i).astype(np.uint16)).save(folder / label / f"{i}.png")
    return folder


def test_a_narrow_range_is_warned_of_once_and_can_be_stretched(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    thermal(tmp_path / "narrow", 29_000, 20)
    data = open_data(tmp_path / "narrow")
    assert len(caplog.records) == 1
    assert "--intensity_range '[29000, 29684]'" in caplog.text
    assert np.ptp(np.asarray(data.train[0][0])) <= 3
    caplog.clear()
    stretched = open_data(tmp_path / "narrow", intensity_range=[29_000, 29_684])
    assert np.ptp(np.asarray(stretched.train[0][0])) > 250
    open_data(thermal(tmp_path / "wide", 100, 1500))
    assert caplog.text == ""


def test_a_narrow_range_of_images_with_masks_or_boxes_or_in_shards(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    thermal(tmp_path / "narrow", 29_000, 20)
    run(ShardsConfig(task=["make", str(tmp_path / "narrow")], out=tmp_path / "shards"))
    write_masks(tmp_path / "masks", {"train": 5, "val": 2}, size=(5, 7))
    write_voc(tmp_path / "voc", {"train": {"1": xml([("dog", (1, 1, 4, 4))], size=None)}, "val": {}}, size=(5, 7))
    for folder in ("masks", "voc"):
        for number, image in enumerate(sorted((tmp_path / folder).rglob("*.jpg"))):
            shutil.copy(tmp_path / "narrow" / "a" / f"{number % 5}.png", image.with_suffix(".png"))
            image.unlink()
    (tmp_path / "voc" / "ImageSets" / "Main" / "val.txt").write_text("2")
    for name in ("JPEGImages/{}.png", "Annotations/{}.xml"):
        shutil.copy(tmp_path / "voc" / name.format(1), tmp_path / "voc" / name.format(2))
    for open_one, name in ((open_data, "shards"), (open_segmentation, "masks"), (open_detection, "voc")):
        caplog.clear()
        open_one(tmp_path / name)
        assert "--intensity_range '[290" in caplog.text
        caplog.clear()
        open_one(tmp_path / name, intensity_range=[29_000, 29_684])
        assert caplog.text == ""


@pytest.mark.parametrize("value", [[1], [1, 1], [5, 2], [0, float("nan")], [0, 1, 2]])
def test_a_range_that_is_none(tmp_path: Path, value: list[float]):
    with pytest.raises(ValueError, match="intensity_range"):
        open_data(thermal(tmp_path / "x", 0, 1), intensity_range=value)
    with pytest.raises(ValueError, match="intensity_range"):
        open_data("digits", intensity_range=[0, 1])
