"""Which folders are splits and which are classes: the right ones, or an error that shows what was found."""

from __future__ import annotations

import logging
import os
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
from tests.data.layouts import counts, write_images

from foveate.data import make_loader, open_data, open_folder
from foveate.data.given import find_images

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", None, "Testing"),
        ("Train", "Val", None),
        ("train", "Val", "Testing"),
        ("TRAIN", "dev", "eval"),
        ("train", "Valid", "TEST"),
        ("training", "Validation", "Evaluation"),
    ],
)
def test_splits_in_any_case_and_by_their_usual_names(tmp_path: Path, train: str, val: str | None, test: str | None):
    write_images(tmp_path, [f"{train}/ant", f"{train}/bee"], 10)
    if val:
        write_images(tmp_path, [f"{val}/ant", f"{val}/bee"], 3)
    if test:
        write_images(tmp_path, [f"{test}/ant", f"{test}/bee"], 4)
    splits = open_folder(tmp_path)
    kept, held = (10, 3) if val else (8, 2)
    assert splits.classes == ("ant", "bee")
    assert counts(splits) == {
        "train": {"ant": kept, "bee": kept},
        "val": {"ant": held, "bee": held},
        **({"test": {"ant": 4, "bee": 4}} if test else {}),
    }
    assert all(Path(path).parts[-3] == (val or train) for path, _ in splits.val.samples)


AMBIGUOUS = {
    "two folders to train on": ["train/a", "train/b", "Training/a", "Training/b"],
    "splits by other words": ["training_set/cats", "training_set/dogs", "test_set/cats", "test_set/dogs"],
    "prefixed splits": ["seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b", "seg_pred/x"],
    "splits with years": ["train2017/a", "train2017/b", "val2017/a", "val2017/b"],
    "classes first": ["cat/train", "cat/val", "dog/train", "dog/val"],
    "one class with a split": ["cat", "dog", "dog/test"],
    "domains first": ["red/cat", "red/dog", "red/emu", "blue/cat", "blue/dog"],
    "domains in a split": ["train/red/cat", "train/red/dog", "train/blue/cat", "train/blue/dog"],
    "domains over images": ["amazon/images/mug", "amazon/images/pen", "dslr/images/mug", "dslr/images/pen"],
    "unused beside train": ["train/cat", "train/dog", "unlabelled"],
    "a class called train": ["bus", "car", "train", "plane"],
    "a class called test": ["blood", "breath", "test"],
    "val in train": ["train/cat", "train/dog", "train/val/cat", "train/val/dog"],
    "a flat test in train": ["train/cat", "train/dog", "train/test"],
    "splits in train": ["train/train/cat", "train/train/dog", "train/test/cat", "train/test/dog"],
    "detection": ["train/images", "train/labels"],
    "segmentation": ["images", "masks"],
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_ambiguous_is_an_error_that_shows_it(tmp_path: Path, name: str):
    write_images(tmp_path / "photos", AMBIGUOUS[name])
    with pytest.raises(ValueError) as caught:
        open_data(tmp_path / "photos")
    named = {part for folder in AMBIGUOUS[name] for part in folder.split("/")}
    assert sum(part in str(caught.value) for part in named) >= 2 or len(named) == 1


def test_a_class_may_be_called_like_a_split_if_all_splits_have_it(tmp_path: Path):
    write_images(
        tmp_path, [f"{split}/{name}" for split in ("train", "val") for name in ("bus", "train", "val_gardena")]
    )
    assert counts(open_folder(tmp_path)) == {
        split: {"bus": 6, "train": 6, "val_gardena": 6} for split in ("train", "val")
    }


def test_class_names_that_hold_the_word_train_are_classes(tmp_path: Path):
    write_images(tmp_path, ["airport", "train_station", "bullet train"], 5)
    assert open_folder(tmp_path).classes == ("airport", "bullet train", "train_station")


@pytest.mark.parametrize("inner", ["x", "x/x", "archive/photos/data"])
@pytest.mark.parametrize("below", [["train/a", "train/b", "test/a", "test/b"], ["a", "b"], ["train/a", "train/b"]])
def test_a_set_further_down_is_named(tmp_path: Path, inner: str, below: list[str]):
    write_images(tmp_path / inner, below)
    write_images(tmp_path / "__MACOSX" / inner, ["a"])
    with pytest.raises(ValueError) as caught:
        open_data(tmp_path)
    assert str(caught.value).endswith(str(tmp_path / inner))
    assert len(open_data(tmp_path / inner).classes) == 2


def test_classes_further_down_in_a_split_are_named(tmp_path: Path):
    write_images(tmp_path, ["train/train/a", "train/train/b", "val/a", "val/b"])
    with pytest.raises(ValueError) as caught:
        open_data(tmp_path)
    assert str(tmp_path / "train" / "train") in str(caught.value)


def test_the_layout_of_tiny_imagenet_is_read(tmp_path: Path):
    write_images(tmp_path, ["train/n01/images", "train/n02/images", "val/n01", "val/n02"])
    for name in ("n01", "n02"):
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0.png 1 2 3 4\n")
    assert counts(open_folder(tmp_path)) == {split: {"n01": 6, "n02": 6} for split in ("train", "val")}


@pytest.mark.parametrize("forms", [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_class_names_in_other_forms_of_unicode_are_the_same(tmp_path: Path, forms: tuple[str, str]):
    write_images(tmp_path, [f"train/{forms[0]}", "train/tea"], 5)
    write_images(tmp_path, [f"val/{forms[1]}", "val/tea"], 2)
    splits = open_folder(tmp_path)
    assert splits.classes == (NFC, "tea")
    assert counts(splits) == {"train": {NFC: 5, "tea": 5}, "val": {NFC: 2, "tea": 2}}
    assert splits.val[0][0].size == (7, 5)  # the file is found under the name on the disk


def test_two_folders_whose_names_differ_in_form_only(tmp_path: Path):
    write_images(tmp_path, [NFC, NFD, "tea"])
    with pytest.raises(ValueError, match="decomposed"):
        open_folder(tmp_path)


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("cat", "cat "), ("ﬁsh", "fish")])
def test_classes_that_are_nearly_the_same_in_two_splits(tmp_path: Path, one: str, other: str):
    write_images(tmp_path, [f"train/{one}", "train/dog", f"val/{other}", "val/dog"])
    with pytest.raises(ValueError) as caught:
        open_folder(tmp_path)
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)


def test_upper_and_lower_case_may_be_two_classes(tmp_path: Path):
    write_images(tmp_path, ["train/A", "train/a", "val/A", "val/a"])
    assert open_folder(tmp_path).classes == ("A", "a")


def test_classes_that_are_numbers_keep_their_names(tmp_path: Path):
    write_images(tmp_path, [f"{split}/{n}" for split in ("train", "val") for n in (0, 1, 2, 10, 100)], 2)
    splits = open_folder(tmp_path)
    assert splits.classes == ("0", "1", "10", "100", "2")
    assert all(splits.classes[label] == Path(path).parent.name for path, label in splits.val.samples)


def test_a_class_without_an_image_in_val(tmp_path: Path):
    write_images(tmp_path, ["train/a", "train/b", "train/c", "val/a", "val/c"])
    (tmp_path / "val" / "b").mkdir()
    assert counts(open_folder(tmp_path))["val"] == {"a": 6, "c": 6}
    shutil.rmtree(tmp_path / "val" / "a")
    shutil.rmtree(tmp_path / "val" / "c")
    with pytest.raises(ValueError, match="val has no class folder"):
        open_folder(tmp_path)


def test_images_beside_class_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_images(tmp_path, ["train/a", "train/b", ""])
    with caplog.at_level(logging.WARNING):
        open_folder(tmp_path)
    assert "6 images" in caplog.text
    write_images(tmp_path, ["train"], 3)
    with pytest.raises(ValueError, match=r"3 images lie in .*train itself"):
        open_folder(tmp_path)


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path):
    write_images(tmp_path, ["a", "b", "__MACOSX/a", "a/.ipynb_checkpoints", "b/@eaDir", ".git", "b/.thumbnails"], 5)
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "0.xmp", "list.txt"):
        (tmp_path / "a" / name).write_bytes(b"\0\5\x16\7")
    splits = open_folder(tmp_path)
    assert splits.classes == ("a", "b")
    assert len(splits.train) + len(splits.val) == 10


@pytest.mark.parametrize("ending", [".jfif", ".JFIF", ".jpe", ".jpg_large", "", ".jpg?width=300", ".1", ".image"])
def test_unusual_endings_are_read(tmp_path: Path, ending: str):
    for name in ("a", "b"):
        write_images(tmp_path, [name], 3, ".jpg")
        for i in range(3):
            shutil.copy(tmp_path / name / f"{i}.jpg", tmp_path / name / f"more{i}{ending}")
    splits = open_folder(tmp_path)
    assert len(splits.train) + len(splits.val) == 12
    assert splits.train[len(splits.train) - 1][0].size == (7, 5)


@pytest.mark.parametrize("ending", [".heic", ".AVIF", ".jp2", ".dcm", ".svg"])
def test_formats_that_are_not_read_are_counted_and_named(tmp_path: Path, ending: str):
    write_images(tmp_path, ["a", "b"], 5)
    for i in range(5):
        (tmp_path / "a" / f"more{i}{ending}").write_bytes(b"\0\0\0\x18ftypheic")
    named = rf" has (\d) images in formats that are not read \(\1 {ending.lower()}\), such as .*more"
    with pytest.raises(ValueError, match=named) as caught:
        open_data(tmp_path, max_bad_images=0)
    (most,) = map(int, re.findall(named, str(caught.value)))  # of those to train on, or of those to validate on
    assert 3 <= most <= 5
    with pytest.raises(ValueError, match=named):
        open_data(tmp_path, max_bad_images=most - 1)
    data = open_data(tmp_path, max_bad_images=most)
    loaders = [
        make_loader(part, transform=data.transform, batch_size=2, training=False, max_bad_images=5)
        for part in (data.train, data.val)
    ]
    assert sum(len(labels) for loader in loaders for _, labels in loader) == 10
    bad = [Path(bad.path).name for loader in loaders for bad in loader.bad_images]
    assert sorted(bad) == [f"more{i}{ending}" for i in range(5)]


def test_copies_that_tools_leave_are_no_images(tmp_path: Path):
    write_images(tmp_path, ["ant", "bee"], 6, ".jpg")
    for name in ("0.jpg_original", "0.jpg.orig", "0.thm", "0.tif.ovr"):
        shutil.copy(tmp_path / "ant" / "0.jpg", tmp_path / "ant" / name)
    splits = open_folder(tmp_path)
    assert sum(sum(part.values()) for part in counts(splits).values()) == 12


def test_a_file_without_an_ending_that_is_no_image_is_passed_over(tmp_path: Path):
    write_images(tmp_path, ["a", "b"], 5)
    (tmp_path / "a" / "README").write_text("about these images")
    os.mkfifo(tmp_path / "b" / "pipe")
    splits = open_folder(tmp_path)
    assert len(splits.train) + len(splits.val) == 10


def test_a_split_that_is_a_link_to_another(tmp_path: Path):
    write_images(tmp_path, ["train/a", "train/b"])
    (tmp_path / "val").symlink_to("train")
    with pytest.raises(ValueError, match="a link to another"):
        open_folder(tmp_path)


def test_the_archive_beside_what_was_in_it(tmp_path: Path):
    write_images(tmp_path, ["train/a", "train/b"])
    (tmp_path / "photos.tar").write_bytes(bytes(1024))
    assert open_data(tmp_path).classes == ("a", "b")


def test_the_current_folder_with_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_images(tmp_path, ["a", "b"], 5)
    rows = [f"{name}/{i}.png,0,0,3,3" for name in "ab" for i in range(5)]
    (tmp_path / "boxes.csv").write_text("\n".join(["file,x_min,y_min,x_max,y_max", *rows]))
    monkeypatch.chdir(tmp_path)
    assert open_data(".").has_boxes


def test_a_folder_of_images_without_endings_is_not_passed_over(tmp_path: Path):
    write_images(tmp_path, ["train/ant", "train/bee", "extra"], 3)
    for path in sorted((tmp_path / "extra").iterdir()):
        path.rename(path.with_suffix(""))
    assert len(find_images([str(tmp_path / "extra")], None)) == 3
    with pytest.raises(ValueError, match="extra"):
        open_folder(tmp_path)
