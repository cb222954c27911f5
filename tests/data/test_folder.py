from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data import FolderImages, UnreadableImageError, open_data, open_folder


def names(images: FolderImages) -> list[str]:
    return [Path(path).parent.name + "/" + Path(path).name for path, _ in images.samples]


def test_train_and_val_folders(photo_folder: Path):
    splits = open_folder(photo_folder)
    assert splits.classes == ("ant", "bee", "cat")
    assert [len(splits.train), len(splits.val), splits.test] == [24, 9, None]
    image, label = splits.val[4]
    np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(photo_folder / "val/bee/1.png")))
    assert label == 1
    assert [splits.train[i][1] for i in range(24)] == [0] * 8 + [1] * 8 + [2] * 8


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_the_validation_folder_and_a_test_folder(photo_folder: Path, name: str):
    shutil.copytree(photo_folder / "val", photo_folder / "test")
    shutil.rmtree(photo_folder / "test" / "bee")
    (photo_folder / "val").rename(photo_folder / name)
    splits = open_folder(photo_folder)
    assert (len(splits.val), len(splits.test)) == (9, 6)
    assert [splits.test[i][1] for i in range(6)] == [
        0,
        0,
        0,
        2,
        2,
        2,
    ]  # labels are those of train, though bee is absent


def test_one_folder_is_split_within_each_class_by_the_seed(photo: Callable[..., Path], tmp_path: Path):
    for name, count in {"x": 10, "y": 25, "z": 1}.items():
        for i in range(count):
            photo(tmp_path / name / f"{i}.jpg", number=i)
    first, again, other = open_folder(tmp_path, seed=5), open_folder(tmp_path, seed=5), open_folder(tmp_path, seed=6)
    assert sorted(names(first.train) + names(first.val)) == sorted(
        f"{p.parent.name}/{p.name}" for p in tmp_path.rglob("*.jpg")
    )
    assert np.bincount([label for _, label in first.val.samples], minlength=3).tolist() == [2, 5, 0]
    assert names(first.val) == names(again.val)
    assert names(first.val) != names(other.val)
    assert open_data(tmp_path, seed=6).val.samples == other.val.samples


def test_a_missing_val_is_taken_from_train_and_test_is_left_alone(photo_folder: Path):
    (photo_folder / "val").rename(photo_folder / "test")
    splits = open_folder(photo_folder)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [18, 6, 9]
    assert not set(names(splits.train)) & set(names(splits.val))
    assert all("/test/" in path for path, _ in splits.test.samples)


def test_hidden_and_other_files_are_passed_over_and_deeper_ones_found(photo: Callable[..., Path], tmp_path: Path):
    for i in range(5):
        photo(tmp_path / "a" / "2021" / f"{i}.PNG")
        photo(tmp_path / "b" / f"{i}.jpeg")
    photo(tmp_path / ".thumbnails" / "1.png")
    photo(tmp_path / "b" / "._1.jpeg".replace("._", ".hidden"))
    (tmp_path / "b" / "notes.txt").write_text("not an image")
    splits = open_folder(tmp_path)
    assert splits.classes == ("a", "b")
    assert sorted(names(splits.train) + names(splits.val)) == sorted(
        [f"2021/{i}.PNG" for i in range(5)] + [f"b/{i}.jpeg" for i in range(5)]
    )


@pytest.mark.parametrize(("size", "expected"), [((64, 64), 64), ((50, 32), 32), ((65, 40), 224), ((300, 200), 224)])
def test_small_images_are_used_at_their_size(photo: Callable[..., Path], tmp_path: Path, size: tuple, expected: int):
    for i in range(10):
        photo(tmp_path / "a" / f"{i}.png", number=i, size=size)
    (tmp_path / "a" / "0.png").write_text("unreadable: it is named later, when it is read")
    data = open_data(tmp_path)
    assert data.image_size == (expected, expected)
    assert data.transform.crop == ("padded" if expected <= 64 else "resized")
    assert open_data(tmp_path, img_size=(96, 80)).image_size == (96, 80)


def test_a_relative_path_starts_from_the_root(photo_folder: Path):
    assert len(open_data("photos", root=photo_folder.parent).train) == 24
    assert open_data(str(photo_folder)).name == str(photo_folder)


def empty(folder: Path) -> str:
    folder.mkdir()
    return r"has no class folder; put the images of each class in a folder of its own, .*/CLASS/"


def only_images(folder: Path) -> str:
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "1.png")
    return "has no class folder"


def empty_class(folder: Path) -> str:
    for name in ("a", "b"):
        (folder / "train" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(folder / "train" / "a" / f"{name}.png")
    return r"no image in .*train/b; remove the folder or put images there, with names that end in .*\.jpg"


def other_class(folder: Path) -> str:
    for part in ("train/a", "train/b", "val/a", "val/c"):
        (folder / part).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(folder / part / "1.png")
    return r"val has the class c, which .*train has not; the classes are a, b$"


def no_train(folder: Path) -> str:
    (folder / "val" / "a").mkdir(parents=True)
    (folder / "test" / "a").mkdir(parents=True)
    return r"has val and test/ but no train/; put the images to train on in .*train"


def two_vals(folder: Path) -> str:
    for part in ("train", "val", "validation"):
        (folder / part / "a").mkdir(parents=True)
    return "has val and validation; keep the one to validate on"


def too_few(folder: Path) -> str:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(folder / name / "1.png")
    return "too few images per class to keep 20% of them for validation; add images, or a folder val/"


@pytest.mark.parametrize("layout", [empty, only_images, empty_class, other_class, no_train, two_vals, too_few])
def test_bad_layouts(tmp_path: Path, layout: Callable[[Path], str]):
    message = layout(tmp_path / "photos")
    with pytest.raises(ValueError, match=message):
        open_data(tmp_path / "photos")


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match=r"there is no folder of images at .*nowhere"):
        open_folder(tmp_path / "nowhere")


def test_a_link_inside_of_the_folder_is_followed(photo_folder: Path):
    (photo_folder / "train" / "cat" / "more").symlink_to(photo_folder / "train" / "ant")
    (photo_folder / "train" / "bee" / "9.png").symlink_to("0.png")
    splits = open_folder(photo_folder)
    assert len(splits.train) == 24 + 8 + 1
    assert "more/7.png" in names(splits.train)
    linked = next(i for i, (path, _) in enumerate(splits.train.samples) if path.endswith("bee/9.png"))
    np.testing.assert_array_equal(np.asarray(splits.train[linked][0]), np.asarray(splits.train[8][0]))


@pytest.mark.parametrize("place", ["train", "train/dog", "train/cat/dogs", "train/cat/x.png", "val", "val/cat/y.png"])
def test_a_link_out_of_the_folder_is_refused(photo_folder: Path, photo: Callable[..., Path], place: str):
    outside = photo_folder.parent / "photos-of-others"
    for name in ("ant", "bee", "cat"):
        photo(outside / name / "1.png")
    link = photo_folder / place
    if link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(outside / "ant" / "1.png" if link.suffix else outside, target_is_directory=not link.suffix)
    with pytest.raises(ValueError, match=rf"{place}.* is, or is behind, a link to .*photos-of-others.*, outside of"):
        open_folder(photo_folder)


def test_of_a_split_that_is_a_link_out_of_the_folder_no_name_is_told(photo_folder: Path):
    secret = photo_folder.parent / "photos-of-others" / "secret"
    secret.mkdir(parents=True)
    (photo_folder / "test").symlink_to(secret.parent)
    with pytest.raises(ValueError, match=r"photos/test is, or is behind, a link to .*, outside of") as refused:
        open_folder(photo_folder)
    assert secret.name not in str(refused.value)


def test_a_link_to_a_folder_as_a_whole_is_the_users_own(photo_folder: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(photo_folder)
    assert len(open_folder(tmp_path / "link").train) == 24


def test_links_in_a_circle_are_refused(photo_folder: Path):
    (photo_folder / "train" / "cat" / "on").symlink_to("../bee")
    (photo_folder / "train" / "bee" / "on").symlink_to("../cat")
    with pytest.raises(ValueError, match=r"is a link to .*, which it stands in; remove it"):
        open_folder(photo_folder)


def test_boxes_from_elsewhere(photo_folder: Path):
    outside = photo_folder.parent / "boxes.csv"
    outside.write_text("file,x_min,y_min,x_max,y_max\n../secret.png,0,0,1,1\n/etc/passwd,0,0,1,1\n")
    with pytest.raises(ValueError, match=r"line 2: there is no image '../secret.png'"):
        open_folder(photo_folder, boxes=outside)
    (photo_folder / "boxes.csv").symlink_to(outside)
    with pytest.raises(ValueError, match=r"photos/boxes.csv is, or is behind, a link to .*, outside of"):
        open_folder(photo_folder)


def test_a_bomb_among_the_images_is_named_when_it_is_read(photo_folder: Path):
    with open(photo_folder / "train" / "ant" / "0.png", "r+b") as file:
        file.seek(16)
        file.write((60_000).to_bytes(4, "big") * 2)
    splits = open_folder(photo_folder)
    with pytest.raises(UnreadableImageError, match=r"ant/0.png: "):
        splits.train[0]
