"""Folders of masks in another layout, and masks whose values are not what they seem."""

from __future__ import annotations

import logging
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
