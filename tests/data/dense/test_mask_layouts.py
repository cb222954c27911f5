"""Folders of masks in another layout, and masks whose values are not what they seem."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.data.dense.made import write_mask, write_masks

from foveate.data.dense import open_segmentation


def test_splits_inside_of_the_folders_of_images_and_masks(tmp_path: Path):
    write_masks(tmp_path / "usual", {"train": 5, "val": 2, "test": 3})
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (tmp_path / "other" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "usual" / split / kind).rename(tmp_path / "other" / kind / split)
    data = open_segmentation(tmp_path / "other")
    assert [data.length(split) for split in ("train", "val", "test")] == [5, 2, 3]
    for split in ("train", "val", "test"):
        assert {Path(sample.path).parent.name for sample in data.split(split).samples} == {split}
    shutil.rmtree(tmp_path / "other" / "masks" / "test")
    with pytest.raises(ValueError, match=r"no folder .*masks.test"):
        open_segmentation(tmp_path / "other")


@pytest.mark.parametrize("values", [(0, 255), (255, 255), (1, 1)])
def test_masks_without_two_classes_are_refused(tmp_path: Path, values: tuple[int, int]):
    write_masks(tmp_path, {"train": 5, "val": 2})
    for file in tmp_path.glob("*/masks/*.png"):
        write_mask(file, np.tile(values, (29, 19))[:, :37])
    with pytest.raises(ValueError, match="training masks"):
        open_segmentation(tmp_path)


def test_values_of_no_pixel_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_masks(tmp_path, {"train": 5, "val": 2})
    for file in tmp_path.glob("*/masks/*.png"):
        write_mask(file, np.tile((0, 100, 200), (29, 13))[:, :37])
    with caplog.at_level(logging.WARNING):
        assert len(open_segmentation(tmp_path).classes) == 201
    assert "198 of the values up to 200" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "Straße"),
        ("classes.csv", "index,name\n0,Straße"),
        ("classes.csv", f"index,name\n0,{'x' * 200_000}"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: str):
    write_masks(tmp_path, {"train": 5, "val": 2})
    (tmp_path / name).write_bytes(content.encode("cp1252"))
    with pytest.raises(ValueError, match=re.escape(name)):
        open_segmentation(tmp_path)


def test_links_inside_of_the_set_are_followed(tmp_path: Path):
    write_masks(tmp_path / "raw", {"train": 5, "val": 2})
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for split in ("train", "val"):
            (tmp_path / kind / split).symlink_to(Path("..", "raw", split, kind))
    assert open_segmentation(tmp_path).length("train") == 5
    (tmp_path / "inner").mkdir()
    for kind in ("images", "masks"):
        (tmp_path / kind).rename(tmp_path / "inner" / kind)
    (tmp_path / "raw").rename(tmp_path / "inner" / "raw")
    assert open_segmentation(tmp_path / "inner").length("train") == 5
    (tmp_path / "inner" / "raw").rename(tmp_path / "raw")
    for kind in ("images", "masks"):
        (tmp_path / "inner" / kind / "train").unlink()
        (tmp_path / "inner" / kind / "train").symlink_to(tmp_path / "raw" / "train" / kind)
    with pytest.raises(ValueError, match="outside"):
        open_segmentation(tmp_path / "inner")


def test_advice_is_for_masks(tmp_path: Path):
    write_masks(tmp_path, {"val": 2})
    with pytest.raises(ValueError, match="no train/") as raised:
        open_segmentation(tmp_path)
    assert "masks/NAME.png" in str(raised.value)
    assert "class" not in str(raised.value)
    write_masks(tmp_path, {"train": 5, "samples": 2})
    with pytest.raises(ValueError, match="samples/") as raised:
        open_segmentation(tmp_path)
    assert "class" not in str(raised.value)
