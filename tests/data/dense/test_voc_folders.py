from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.data.dense.made import write_voc, xml
from tests.made_sets import write_photo

from foveate.data import UnreadableImageError
from foveate.data.dense import open_detection
from foveate.training import TrainConfig
from foveate.training.build import configured_task

CAT, DOG = ("cat", (1, 1, 37, 29)), ("dog", (3, 5, 11, 7))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    splits = {
        "train": {"a": xml([DOG, CAT]), "b": xml([CAT]), "c": xml([]), "d": xml([DOG], size=None)},
        "val": {"e": xml([DOG], difficult=1), "f": xml([CAT, DOG, CAT])},
        "test": {"g": xml([CAT])},
    }
    return write_voc(tmp_path / "set", splits)


def test_boxes_count_from_zero_and_exclude_the_last_pixel(folder: Path):
    data = open_detection(folder)
    assert data.classes == ("cat", "dog")
    assert [data.length(split) for split in ("train", "val", "test")] == [4, 2, 1]
    found = data.train[0][1]
    assert found.boxes.tolist() == [[2, 4, 11, 7], [0, 0, 37, 29]]  # in VOC's a box from 1 to 1 is the first pixel
    assert found.labels.tolist() == [1, 0]
    assert found.ignored.tolist() == [False, False]
    assert found.masks is None
    assert (found.boxes.dtype, found.labels.dtype, found.ignored.dtype) == (torch.float32, torch.int64, torch.bool)
    assert len(data.train[2][1]) == 0
    assert data.train[3][1].boxes.tolist() == [[2, 4, 11, 7]]
    assert data.val[0][1].ignored.tolist() == [True]
    assert [name for name, _ in data.entries("val")] == ["JPEGImages/e.jpg", "JPEGImages/f.jpg"]
    assert data.train[0][0].size == (37, 29)


def test_names_may_have_spaces(tmp_path: Path):
    images = {"my photo": xml([CAT]), "my photo 1": xml([DOG]), "plain": xml([])}
    root = write_voc(tmp_path, {"train": images, "val": {"other one": xml([CAT])}})
    (root / "ImageSets" / "Main" / "train.txt").write_text("my photo\nmy photo 1\nplain -1\n")
    (root / "ImageSets" / "Main" / "val.txt").write_text("other one  1\n")
    data = open_detection(root, options={"classes": ["cat", "dog"]})
    assert [name for name, _ in data.entries("train")] == [f"JPEGImages/{name}.jpg" for name in images]
    assert [name for name, _ in data.entries("val")] == ["JPEGImages/other one.jpg"]


def test_classes_may_be_given(folder: Path):
    data = open_detection(folder, options={"classes": ["dog", "bird", "cat"]})
    assert data.classes == ("dog", "bird", "cat")
    assert data.train[0][1].labels.tolist() == [0, 2]


def test_a_missing_validation_list_is_kept_from_training(tmp_path: Path):
    root = write_voc(tmp_path, {"train": {f"{i}": xml([CAT]) for i in range(10)}})
    names = [[name for name, _ in open_detection(root, seed=3).entries(split)] for split in ("train", "val")]
    assert [len(part) for part in names] == [8, 2]
    assert len({*names[0], *names[1]}) == 10


def test_a_box_may_reach_out_by_a_pixel(tmp_path: Path):
    objects = [("cat", (0, 0, 38, 30)), ("cat", (0.5, 1, 37.5, 29)), ("cat", (5, 5, 5, 5))]
    root = write_voc(tmp_path, {"train": {"a": xml(objects)}, "val": {"b": xml(objects)}})
    boxes = open_detection(root).train[0][1].boxes.tolist()
    assert boxes == [[0, 0, 37, 29], [0, 0, 37, 29], [4, 4, 5, 5]]


def laughs() -> str:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY e0 "ha">{entities}]><annotation>&e9;</annotation>'


BAD = {
    "above the image": xml([CAT, ("dog", (3, -1, 11, 7))]),
    "right of the image": xml([CAT, ("dog", (3, 5, 39.5, 7))]),
    "below the image": xml([CAT, ("dog", (3, 5, 11, 32))]),
    "outside": xml([CAT, ("dog", (38, 5, 38, 7))]),
    "upside down": xml([CAT, ("dog", (3, 7, 11, 5))]),
    "mirrored": xml([CAT, ("dog", (11, 5, 3, 7))]),
    "not a number": xml([CAT, ("dog", ("three", 5, 11, 7))]),  # type: ignore[list-item]
    "nan": xml([CAT, ("dog", (float("nan"), 5, 11, 7))]),
    "infinite": xml([CAT, ("dog", (3, 5, float("inf"), 7))]),
    "no box": xml([CAT]).replace("bndbox", "box"),
    "no corner": xml([CAT, DOG]).replace("<xmax>11</xmax>", ""),
    "no name": xml([CAT, ("", (3, 5, 11, 7))]),
    "another class": xml([CAT, ("dgo", (3, 5, 11, 7))]),
    "another size": xml([CAT], size=(29, 37)),
    "wrong size": xml([DOG], size=(38, 29)),
    "no xml": "{}",
    "cut off": xml([CAT])[:-20],
    "empty": "",
    "entities": laughs(),
    "external": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><object>&x;</object></annotation>',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_bad_annotations_are_named_counted_and_left_out(folder: Path, text: str):
    path = folder / "Annotations" / "f.xml"
    path.write_text(text, "utf-8")
    data = open_detection(folder, max_bad_images=1)
    with pytest.raises(UnreadableImageError, match=r"f\.xml") as caught:
        data.val[1]
    if "dog" in text and "cat" in text and "bndbox" in text:
        assert "object 2" in str(caught.value)
    loader = data.loaders(batch_size=2).val
    assert [len(targets) for _, targets in loader] == [1]
    assert [bad.path for bad in loader.bad_images] == [str(path)]
    with pytest.raises(ValueError, match=r"f\.xml"):
        list(open_detection(folder).loaders(batch_size=2).val)


def test_other_encodings_hide_no_entities(folder: Path):
    path = folder / "Annotations" / "f.xml"
    for encoding in ("utf-16", "utf-16-le", "cp037"):
        path.write_bytes(laughs().replace('"1.0"', f'"1.0" encoding="{encoding}"').encode(encoding))
        with pytest.raises(ValueError, match=r"f\.xml"):
            open_detection(folder)


def test_boxes_are_compared_with_the_image_where_the_file_gives_no_size(folder: Path):
    (folder / "Annotations" / "f.xml").write_text(xml([CAT, ("dog", (3, 5, 60, 7))], size=None))
    with pytest.raises(UnreadableImageError, match=r"f\.xml: object 2, dog"):
        open_detection(folder).val[1]


def test_a_pipe_is_not_waited_for(folder: Path):
    path = folder / "Annotations" / "f.xml"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"f\.xml"):
        open_detection(folder)


@pytest.mark.parametrize("missing", ["JPEGImages/f.jpg", "Annotations/f.xml"])
def test_missing_files_are_known_at_once(folder: Path, missing: str):
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=missing):
        open_detection(folder)
    loader = open_detection(folder, max_bad_images=1).loaders(batch_size=1).val
    assert len(list(loader)) == 1
    assert [bad.path for bad in loader.bad_images] == [str(folder / missing)]


def listed_twice(root: Path) -> None:
    (root / "ImageSets" / "Main" / "val.txt").write_text("e\nf\ne\n")


def in_two_splits(root: Path) -> None:
    (root / "ImageSets" / "Main" / "val.txt").write_text("e\na\n")


def leads_out(root: Path) -> None:
    (root / "ImageSets" / "Main" / "val.txt").write_text("../../e\n")


def empty_list(root: Path) -> None:
    (root / "ImageSets" / "Main" / "val.txt").write_text("\n")


def no_list(root: Path) -> None:
    (root / "ImageSets" / "Main" / "train.txt").unlink()


def no_image(root: Path) -> None:
    for image in (root / "JPEGImages").iterdir():
        image.unlink()


def no_object(root: Path) -> None:
    for name in "abcd":
        (root / "Annotations" / f"{name}.xml").write_text(xml([]))


def two_images_of_a_name(root: Path) -> None:
    write_photo(root / "JPEGImages" / "f.png")


def link_out(root: Path) -> None:
    (root.parent / "outside.xml").write_text(xml([CAT]))
    (root / "Annotations" / "f.xml").unlink()
    (root / "Annotations" / "f.xml").symlink_to(root.parent / "outside.xml")


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (listed_twice, r"val\.txt"),
        (in_two_splits, r"val\.txt"),
        (leads_out, r"val\.txt"),
        (empty_list, r"val\.txt"),
        (no_list, r"train\.txt"),
        (no_image, "JPEGImages"),
        (no_object, "classes"),
        (two_images_of_a_name, r"f\.png"),
        (link_out, r"outside\.xml"),
    ],
)
def test_folders_that_are_not_laid_out_so(folder: Path, spoil: Callable[[Path], None], field: str):
    spoil(folder)
    with pytest.raises(ValueError, match=field):
        open_detection(folder, max_bad_images=99)


@pytest.mark.parametrize("classes", ["cat", [], ["cat", "cat"], 3])
def test_bad_classes(folder: Path, classes: object):
    with pytest.raises(ValueError, match="classes"):
        open_detection(folder, options={"classes": classes})


def test_unknown_option(folder: Path):
    with pytest.raises(ValueError, match="did you mean 'classes'"):
        open_detection(folder, options={"class": ["cat"]})


def test_a_folder_of_neither_kind(tmp_path: Path):
    with pytest.raises(ValueError, match="annotations"):
        open_detection(tmp_path)


def test_boxes_alone_are_not_enough_for_masks(tmp_path: Path) -> None:
    images = {str(number): xml([("cat", (2, 3, 21, 25))]) for number in range(4)}
    folder = write_voc(tmp_path / "voc", {"train": images, "val": {"9": images["0"]}})
    config = TrainConfig(task="detection", detector="maskrcnn", model="test_resnet", data=str(folder))
    with pytest.raises(ValueError, match="detector: Mask R-CNN learns from masks"):
        configured_task(config, open_detection(folder))
