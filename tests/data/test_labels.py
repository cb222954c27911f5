"""Lists of labels, as Hugging Face, Kaggle and Roboflow have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.layouts import counts, write_images

from foveate.data import open_data, open_folder

ANTS = {"0": "ant", "1": "ant", "2": "ant", "3": "bee", "4": "bee", "5": "bee"}
"""The class of each of the six images that `write_images` writes."""


def csv_of(header: str, lines: list[str]) -> str:
    return "\n".join([header, *lines]) + "\n"


def in_each_split(name: str, text: Callable[[], str]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for split in ("train", "val"):
            write_images(root, [split], 6)
            (root / split / name).write_text(text(), encoding="utf-8-sig")

    return write


def hugging_face_csv() -> str:
    return csv_of("file_name,label,text", [f'{i}.png,{name},"a, b"' for i, name in ANTS.items()])


def hugging_face_lines() -> str:
    return "\n".join(json.dumps({"file_name": f"./{i}.png", "label": name}) for i, name in ANTS.items())


def roboflow() -> str:
    return csv_of("filename, ant, bee", [f"{i}.png, {int(n == 'ant')}, {int(n == 'bee')}" for i, n in ANTS.items()])


def mapping() -> str:
    return json.dumps({f"{i}.png": name for i, name in ANTS.items()})


def kaggle(root: Path) -> None:
    for split in ("train", "val"):
        write_images(root, [split], 6)
        (root / f"{split}.csv").write_text(csv_of("image_id,Label", [f"{i},{name}" for i, name in ANTS.items()]))
    (root / "sample_submission.csv").write_text("image_id,label\n1,ant\n")


def one_for_all(root: Path) -> None:
    write_images(root, ["train", "val"], 6)
    lines = [f"{split}/{i}.png,{name}" for split in ("train", "val") for i, name in ANTS.items()]
    (root / "metadata.csv").write_text(csv_of("file_name,label", lines))


def sessions(root: Path) -> None:
    """Folders that are no classes, and a list that says what are."""
    for split in ("train", "val"):
        write_images(root / split, ["2021", "2022"], 3)
        names = [f"{year}/{i}.png" for year in (2021, 2022) for i in range(3)]
        lines = [f"{name},{label}" for name, label in zip(names, ANTS.values(), strict=True)]
        (root / split / "metadata.csv").write_text(csv_of("file_name,label", lines))


LISTED = {
    "metadata.csv": in_each_split("metadata.csv", hugging_face_csv),
    "metadata.jsonl": in_each_split("metadata.jsonl", hugging_face_lines),
    "Roboflow": in_each_split("_classes.csv", roboflow),
    "labels.json": in_each_split("labels.json", mapping),
    "Kaggle": kaggle,
    "one for all": one_for_all,
    "sessions": sessions,
}


@pytest.mark.parametrize("name", LISTED)
def test_a_list_gives_the_classes(tmp_path: Path, name: str):
    LISTED[name](tmp_path)
    splits = open_folder(tmp_path)
    assert splits.classes == ("ant", "bee")
    assert counts(splits) == {split: {"ant": 3, "bee": 3} for split in ("train", "val")}
    by_name = {Path(path).stem: splits.classes[label] for path, label in splits.val.samples}
    assert name == "sessions" or by_name == ANTS
    assert splits.train[0][0].size == (7, 5)


@pytest.mark.parametrize("folder", ["", "images"])
def test_a_flat_folder_with_a_list_is_divided(tmp_path: Path, folder: str):
    write_images(tmp_path, [folder], 6)
    write_images(tmp_path / folder, ["more"], 4)
    lines = [f"{Path(folder, f'{i}.png')},{name}" for i, name in ANTS.items()]
    lines += [f"{Path(folder, 'more', f'{i}.png')},bee" for i in range(4)]
    (tmp_path / "labels.csv").write_text(csv_of("path,class", lines))
    splits = open_folder(tmp_path)
    assert (len(splits.train), len(splits.val)) == (8, 2)
    assert splits.classes == ("ant", "bee")


def test_the_number_0_is_a_name(tmp_path: Path):
    write_images(tmp_path, ["train"], 6)
    lines = (json.dumps({"id": number, "label": "ab"[number % 2]}) for number in range(6))
    (tmp_path / "train" / "labels.jsonl").write_text("\n".join(lines))
    assert open_folder(tmp_path).classes == ("a", "b")


def test_captions_are_no_labels(tmp_path: Path):
    write_images(tmp_path, ["a", "b"], 5)
    (tmp_path / "metadata.csv").write_text("file_name,text\na/0.png,a thing\n")
    assert open_folder(tmp_path).classes == ("a", "b")


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (csv_of("file_name,label", [f"{i}.png,a" for i in range(5)]), "no label for 1 images"),
        (csv_of("file_name,label", [f"{i}.png,a" for i in range(7)]), "no image '6.png'"),
        (csv_of("file_name,label", [*(f"{i}.png,a" for i in range(6)), "0.png,b"]), "'0.png' was listed as 'a'"),
        (csv_of("file_name,label", [*(f"{i}.png,a" for i in range(6)), "0,b"]), "as 'a' and as 'b'"),
        (csv_of("file_name,label", ["0.png,a", "1.png,"]), "entry 2: '1.png' must have one class"),
        (csv_of("file_name,label,class", ["0.png,a,b"]), "columns file_name, label, class; keep one"),
        (csv_of("file_name,label", ["../secret.png,a"]), "no image '../secret.png'"),
        ('file_name,label\n"0.png,a\n', "is not a list of labels"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, text: str, about: str):
    write_images(tmp_path, ["train"], 6)
    (tmp_path / "train" / "metadata.csv").write_text(text)
    with pytest.raises(ValueError, match=about) as caught:
        open_data(tmp_path)
    assert "metadata.csv" in str(caught.value)


def test_several_classes_of_an_image(tmp_path: Path):
    write_images(tmp_path, ["train"], 2)
    (tmp_path / "train" / "_classes.csv").write_text("filename,a,b\n0.png,1,0\n1.png,1,1\n")
    with pytest.raises(ValueError, match=r"entry 2: '1.png' must have one class"):
        open_folder(tmp_path)
    (tmp_path / "train" / "_classes.csv").unlink()
    (tmp_path / "train" / "labels.jsonl").write_text('{"file": "0.png", "label": ["a", "b"]}\n')
    with pytest.raises(ValueError, match=r"entry 1: '0.png' must have one class"):
        open_folder(tmp_path)


def test_a_name_that_could_be_two_images(tmp_path: Path):
    write_images(tmp_path, ["train/x", "train/y"], 1)
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n0.png,a\n")
    with pytest.raises(ValueError, match="more than one image"):
        open_folder(tmp_path)


def test_two_lists_and_a_split_without_one(tmp_path: Path):
    write_images(tmp_path, ["train", "val"], 6)
    (tmp_path / "train" / "metadata.csv").write_text(hugging_face_csv())
    with pytest.raises(ValueError, match=r"val has no list of labels"):
        open_folder(tmp_path)
    (tmp_path / "train" / "metadata.jsonl").write_text(hugging_face_lines())
    with pytest.raises(ValueError, match=r"metadata.csv and .*metadata.jsonl"):
        open_folder(tmp_path)


def test_a_list_of_all_splits_that_names_no_image_is_not_passed_over(tmp_path: Path):
    write_images(tmp_path, ["train/2021", "train/2022"], 6)
    (tmp_path / "metadata.csv").write_text(csv_of("file_name,label", [f"2021/{i}.png,{n}" for i, n in ANTS.items()]))
    with pytest.raises(ValueError, match=r"the image '2021/0.png', nor 5 others"):
        open_folder(tmp_path)


def test_labels_in_val_that_training_lacks(tmp_path: Path):
    LISTED["metadata.csv"](tmp_path)
    path = tmp_path / "val" / "metadata.csv"
    path.write_text(path.read_text().replace("bee", "Bee"))
    with pytest.raises(ValueError, match=r"'Bee' is .* 'bee' there"):
        open_folder(tmp_path)


@pytest.mark.parametrize("other", ["_annotations.csv", "_annotations.coco.json", "images.zip"])
def test_what_lies_there_instead_is_shown(tmp_path: Path, other: str):
    write_images(tmp_path, ["train", "valid"], 6)
    (tmp_path / "train" / other).write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n0.png,7,5,a,0,0,1,1\n")
    with pytest.raises(ValueError, match=f"Found: 6 images, {other}"):
        open_folder(tmp_path)


def test_a_list_behind_a_link_out_of_the_folder(tmp_path: Path):
    write_images(tmp_path, ["photos/train"], 6)
    (tmp_path / "secret.csv").write_text("password,label\n123,a\n")
    (tmp_path / "photos" / "train" / "metadata.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(ValueError, match=r"metadata.csv is, or is behind, a link to") as caught:
        open_folder(tmp_path / "photos")
    assert "password" not in str(caught.value)
