from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.dense.made import write_mask, xml
from tests.made_sets import write_pets, write_photo

from foveate.data import UnreadableImageError
from foveate.data.dense import VOID, open_detection, open_segmentation
from foveate.data.dense.named import NAMED_DETECTION, NAMED_SEGMENTATION


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Return a root that holds a small VOC 2012 in its published layout."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for kind in ("Main", "Segmentation"):
        (base / "ImageSets" / kind).mkdir(parents=True)
        for split, names in {"train": "abc", "val": "de"}.items():
            (base / "ImageSets" / kind / f"{split}.txt").write_text("\n".join(names) + "\n")
    (base / "Annotations").mkdir()
    for number, name in enumerate("abcde"):
        write_photo(base / "JPEGImages" / f"{name}.jpg", number=number)
        values = np.full((29, 37), number)
        values[:, 0] = 255
        write_mask(base / "SegmentationClass" / f"{name}.png", values, mode="P")
        (base / "Annotations" / f"{name}.xml").write_text(xml([("tvmonitor", (2, 3, 10 + number, 11))]))
    return tmp_path


def test_voc_masks(voc: Path):
    data = open_segmentation("torchvision/VOCSegmentation", root=voc)
    assert len(data.classes) == 21
    assert data.classes[:2] == ("background", "aeroplane")
    assert (data.length("train"), data.length("val"), data.test) == (3, 2, None)
    mask = data.val[1][1]
    assert (mask[:, 0] == VOID).all()
    assert (mask[:, 1:] == 4).all()


def test_voc_boxes(voc: Path):
    data = open_detection("torchvision/VOCDetection", root=voc)
    assert len(data.classes) == 20
    found = data.val[1][1]
    assert found.boxes.tolist() == [[1, 2, 14, 11]]
    assert [data.classes[label] for label in found.labels] == ["tvmonitor"]
    (voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"a\.jpg"):
        open_detection("torchvision/VOCDetection", root=voc)


def test_pets(tmp_path: Path):
    root = write_pets(tmp_path, {"trainval": (20, 20), "test": (3, 3)}, [("Abyssinian", 1), ("great_pyrenees", 2)])
    base = root / "oxford-iiit-pet"
    for image in (base / "images").iterdir():
        values = 1 + np.arange(29 * 37).reshape(29, 37) % 3
        write_mask(base / "annotations" / "trimaps" / f"{image.stem}.png", values)
    data = open_segmentation("torchvision/OxfordIIITPet", root=root)
    assert data.classes == ("pet", "background", "border")
    assert [data.length(split) for split in ("train", "val", "test")] == [36, 4, 6]
    names = [name for split in ("train", "val", "test") for name, _ in data.entries(split)]
    assert len(set(names)) == 46
    assert [sum("Abyssinian" in name for name, _ in data.entries(split)) for split in ("train", "val")] == [18, 2]
    np.testing.assert_array_equal(data.test[0][1], np.arange(29 * 37).reshape(29, 37) % 3)
    name = next(iter(data.entries("test")))[0]
    Image.new("RGB", (37, 29)).save(base / "annotations" / "trimaps" / f"{Path(name).stem}.png")
    with pytest.raises(UnreadableImageError, match="trimaps"):
        data.test[0]


@pytest.mark.parametrize("name", [*NAMED_SEGMENTATION, *NAMED_DETECTION])
def test_missing_files_are_said_to_be_missing(tmp_path: Path, name: str):
    open_dense = open_segmentation if name in NAMED_SEGMENTATION else open_detection
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=str(root)):
            open_dense(name, root=root)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="options"):
        open_dense(name, root=tmp_path, options={"void": 3})


def test_sets_of_class_labels_are_none(tmp_path: Path):
    for open_dense in (open_segmentation, open_detection):
        with pytest.raises(ValueError, match="torchvision/VOC"):
            open_dense("torch/cifar100", root=tmp_path)
