from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from tests.data.dense.made import write_coco

from foveate.data import UnreadableImageError
from foveate.data.dense import open_detection
from foveate.data.dense.segments import Segments, segment
from foveate.tasks import Detection

HEIGHT, WIDTH = 29, 37
CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}]
TRIANGLE = [[2, 3, 20.5, 4, 11, 25.25]]


def bars() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:20, 5:9], mask[7:9, 20:33], mask[28, 36] = True, True, True
    return mask


def counts(mask: np.ndarray) -> list[int]:
    flat = mask.T.reshape(-1)
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    return [0] * bool(flat[0]) + np.diff(edges).tolist()


def content(split: str) -> dict[str, Any]:
    images = [
        {"id": 10 + i, "file_name": f"{split}{i}.jpg", "height": HEIGHT, "width": WIDTH}
        for i in range(4 if split == "train" else 2)
    ]
    crowd = {"size": [HEIGHT, WIDTH], "counts": counts(bars())}
    annotations = [
        {"id": 1, "image_id": 11, "category_id": 9, "bbox": [2, 3, 18.5, 22.25], "segmentation": TRIANGLE},
        {"id": 2, "image_id": 10, "category_id": 3, "bbox": [0, 0, 37, 29], "segmentation": TRIANGLE, "iscrowd": 0},
        {"id": 7, "image_id": 11, "category_id": 3, "bbox": [5, 3, 32, 26], "segmentation": crowd, "iscrowd": 1},
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "set", {split: content(split) for split in ("train", "val", "test")})


def test_boxes_and_masks(folder: Path):
    data = open_detection(folder)
    assert data.classes == ("cat", "dog")  # in the order of their ids
    assert [data.length(split) for split in ("train", "val", "test")] == [4, 2, 2]
    found = data.train[1][1]
    assert found.boxes.tolist() == [[2, 3, 20.5, 25.25], [5, 3, 37, 29]]
    assert found.labels.tolist() == [1, 0]
    assert found.ignored.tolist() == [False, True]
    drawn = coco_masks.decode(coco_masks.frPyObjects(TRIANGLE, HEIGHT, WIDTH))[..., 0]
    np.testing.assert_array_equal(found.masks.numpy(), np.stack([drawn, bars()]))
    nothing = data.train[2][1]
    assert (len(nothing), nothing.masks.shape) == (0, (0, HEIGHT, WIDTH))
    assert [name for name, _ in data.entries("val")] == ["val/val0.jpg", "val/val1.jpg"]


def test_the_published_names(folder: Path):
    for split in ("train", "val"):
        (folder / "annotations" / f"{split}.json").rename(folder / "annotations" / f"instances_{split}2017.json")
        (folder / split).rename(folder / f"{split}2017")
    (folder / "annotations" / "test.json").unlink()
    (folder / "annotations" / "captions_train2017.json").write_text("{}")
    data = open_detection("torchvision/CocoDetection", root=folder)
    assert (data.length("train"), data.length("val"), data.test) == (4, 2, None)


def test_masks_may_be_left_unread(folder: Path):
    assert open_detection(folder, options={"masks": False}).train[1][1].masks is None


def test_masks_are_drawn_for_detectors_that_learn_from_them(folder: Path):
    data = open_detection(folder)
    for detector, drawn in {"fasterrcnn": False, "maskrcnn": True}.items():
        image, found = Detection(data.classes, detector=detector).samples(data.train)[1]
        assert (found.masks is not None) == drawn
        assert found.boxes.tolist() == data.train[1][1].boxes.tolist()
        assert image.size == (WIDTH, HEIGHT)


def test_masks_of_some_objects_are_of_no_use(folder: Path, caplog: pytest.LogCaptureFixture):
    parts = content("train")
    parts["annotations"][0]["segmentation"] = []
    (folder / "annotations" / "train.json").write_text(json.dumps(parts))
    assert open_detection(folder).train[1][1].masks is None
    assert "1 of 9" in caplog.text


@pytest.mark.parametrize("number", range(20))
def test_runs_are_decoded_as_pycocotools_does(number: int):
    generator = np.random.default_rng(number)
    mask = generator.random((HEIGHT, WIDTH)) < generator.random()
    if number < 2:
        mask[:] = number
    runs = {"size": [HEIGHT, WIDTH], "counts": counts(mask)}
    text = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    for value in (runs, {**text, "counts": text["counts"].decode()}):
        found = Segments([segment(value, (HEIGHT, WIDTH), "mask")])((HEIGHT, WIDTH))
        np.testing.assert_array_equal(found, mask[None])


def of_image(**change: Any) -> dict[str, Any]:
    """Return the training file with another first annotation, which is of its second image."""
    parts = copy.deepcopy(content("train"))
    parts["annotations"][0].update(change)
    return parts


RUNS = {"size": [HEIGHT, WIDTH], "counts": [3, 5, 1065]}
BAD_IMAGES = {
    "negative width": of_image(bbox=[2, 3, -4, 5]),
    "beyond": of_image(bbox=[2, 3, 37, 5]),
    "above": of_image(bbox=[2, -3, 7, 5]),
    "three numbers": of_image(bbox=[2, 3, 4]),
    "no box": of_image(bbox=None),
    "text": of_image(bbox=["2", 3, 4, 5]),
    "boolean": of_image(bbox=[True, 3, 4, 5]),
    "huge": of_image(bbox=[2, 3, 10**400, 5]),
    "crowd": of_image(iscrowd=[]),
    "two points": of_image(segmentation=[[2, 3, 4, 5]]),
    "odd": of_image(segmentation=[[2, 3, 4, 5, 6, 7, 8]]),
    "far out": of_image(segmentation=[[2, 3, 4, 5, 1e9, 7]]),
    "polygon of text": of_image(segmentation=[[2, 3, 4, 5, "6", 7]]),
    "polygon of nothing": of_image(segmentation=[None]),
    "segmentation of text": of_image(segmentation="abc"),
    "runs of another size": of_image(segmentation={**RUNS, "size": [WIDTH, HEIGHT]}),
    "too short": of_image(segmentation={**RUNS, "counts": [3, 5]}),
    "too long": of_image(segmentation={**RUNS, "counts": [3, 5, 10000]}),
    "negative run": of_image(segmentation={**RUNS, "counts": [3, -5, 1075]}),
    "text that is none": of_image(segmentation={**RUNS, "counts": "zz"}),
    "text that goes on": of_image(segmentation={**RUNS, "counts": "oooooooooooo0"}),
    "no counts": of_image(segmentation={"size": [HEIGHT, WIDTH]}),
}


@pytest.mark.parametrize("parts", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_objects_are_named_counted_and_left_out(folder: Path, parts: dict):
    (folder / "annotations" / "train.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match=r"train\.json, image 11 \(train1\.jpg\).*annotations\[0\], dog"):
        open_detection(folder)
    data = open_detection(folder, max_bad_images=1)
    with pytest.raises(UnreadableImageError, match=r"annotations\[0\], dog"):
        data.train[1]
    assert len(data.train[0][1]) == 1


@pytest.mark.parametrize("box", [[2, 3, 4, 0], [2, 3, 0.0, 4], [2, 3, 0, 0]], ids=str)
def test_objects_without_area_are_left_out_and_counted(folder: Path, box: list, caplog: pytest.LogCaptureFixture):
    (folder / "annotations" / "train.json").write_text(json.dumps(of_image(bbox=box, segmentation=[])))
    data = open_detection(folder)
    assert data.train[1][1].labels.tolist() == [0]  # the other object of the image
    assert len(data.train[1][1].masks) == 1
    assert any("1 object(s)" in record.getMessage() for record in caplog.records)


def test_test_images_without_any_object_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "annotations" / "test.json").write_text(json.dumps({**content("test"), "annotations": []}))
    assert open_detection(folder).test is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("change", [{"width": 38}, {"height": 37, "width": 29}, {"height": 0}, {"width": "37"}])
def test_images_of_another_size(folder: Path, change: dict):
    parts = content("train")
    parts["images"][2].update(change)
    (folder / "annotations" / "train.json").write_text(json.dumps(parts))
    with pytest.raises(UnreadableImageError, match=r"train\.json, image 12"):
        open_detection(folder, max_bad_images=1).train[2]


@pytest.mark.parametrize("name", ["gone.jpg", "../val/val0.jpg", "/etc/hostname"])
def test_missing_images_are_known_at_once(folder: Path, name: str):
    parts = content("train")
    parts["images"][1]["file_name"] = name
    (folder / "annotations" / "train.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match=re.escape(name)):
        open_detection(folder)
    assert len(open_detection(folder, max_bad_images=1).train[0][1]) == 1


def edited(part: str, number: int, **change: Any) -> str:
    parts = copy.deepcopy(content("train"))
    parts[part][number].update(change)
    return json.dumps(parts)


BROKEN = {
    "images": edited("images", 1, id=10),
    r"images\[1\]": edited("images", 1, file_name="train0.jpg"),
    r"images\[2\].file_name": edited("images", 2, file_name=None),
    r"images\[2\].id": edited("images", 2, id="12"),
    r"annotations\[2\].id": edited("annotations", 2, id=1),
    r"annotations\[2\].image_id": edited("annotations", 2, image_id=99),
    r"annotations\[1\].image_id": edited("annotations", 1, image_id=None),
    r"annotations\[2\].category_id": edited("annotations", 2, category_id=4),
    r"annotations\[1\].category_id": edited("annotations", 1, category_id=3.0),
    r"categories\[1\]": edited("categories", 1, id=9),
    r"categories\[1\], 'dog'": edited("categories", 1, name="dog"),
    r"categories\[1\].name": edited("categories", 1, name=7),
    "NaN": json.dumps(of_image(bbox=[float("nan"), 3, 4, 5])),
    "annotations must": json.dumps({**content("train"), "annotations": {}}),
    r"annotations\[0\] must": json.dumps({**content("train"), "annotations": [7]}),
    "images must": json.dumps({**content("train"), "images": []}),
    "categories must": json.dumps({"images": [{}], "annotations": []}),
    "the file must": "[]",
    "not JSON": "{",
    "other categories": json.dumps({**content("train"), "categories": [*CATEGORIES, {"id": 4, "name": "cow"}]}),
    r"JSON.*": "[" * 100_000,
}


@pytest.mark.parametrize(("field", "text"), BROKEN.items(), ids=BROKEN)
def test_broken_files_are_named(folder: Path, field: str, text: str):
    (folder / "annotations" / "train.json").write_text(text)
    with pytest.raises(ValueError, match=field) as caught:
        open_detection(folder, max_bad_images=99)
    assert "train.json" in str(caught.value)


def test_folders_that_are_not_laid_out_so(folder: Path):
    (folder / "annotations" / "instances_val2017.json").write_text("{}")
    with pytest.raises(ValueError, match=r"instances_val2017\.json and val\.json"):
        open_detection(folder)
    (folder / "annotations" / "instances_val2017.json").unlink()
    (folder / "val").rename(folder / "validation")
    with pytest.raises(ValueError, match=r"set/val "):
        open_detection(folder)
    (folder / "annotations" / "train.json").unlink()
    (folder / "annotations" / "val.json").unlink()
    with pytest.raises(ValueError, match="train"):
        open_detection(folder)


def test_unknown_option(folder: Path):
    with pytest.raises(ValueError, match="did you mean 'masks'"):
        open_detection(folder, options={"mask": False})
    with pytest.raises(ValueError, match="masks"):
        open_detection(folder, options={"masks": "no"})
