"""Boxes from a CSV, and their place in the tensor against where the transform really puts things."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.data import (
    BoxedImages,
    ClutteredDigits,
    InputBoxes,
    TransformConfig,
    UnreadableImageError,
    make_loader,
    make_transform,
    open_data,
    open_folder,
    placement,
)

HEADER = "file,x_min,y_min,x_max,y_max"


def write(folder: Path, *lines: str, name: str = "boxes.csv") -> Path:
    (folder / name).write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return folder / name


def all_lines(folder: Path, split: str = "") -> list[str]:
    """Return a line for each image of 37×29: its box depends on its number."""
    files = sorted(folder.rglob("*.png"))
    lines = [(file.relative_to(folder).as_posix(), int(file.stem)) for file in files]
    return [f"{name},{i},{2 * i},{i + 11},28" for name, i in lines if name.startswith(split)]


CONFIGS = {
    "as it is": ({"img_size": 29, "crop_pct": 1.0}, (29, 29)),
    "larger": ({"img_size": 32, "crop_pct": 1.0, "interpolation": "bilinear"}, (20, 20)),
    "central part": ({"img_size": 24, "crop_pct": 0.8}, (29, 37)),
    "upright": ({"img_size": 32, "crop_pct": 0.9, "interpolation": "bilinear"}, (61, 43)),
    "wide": ({"img_size": (20, 36), "crop_pct": 0.875}, (59, 83)),
    "high": ({"img_size": (33, 17), "crop_pct": 1.0, "interpolation": "bilinear"}, (50, 50)),
    "black border": ({"img_size": 32, "crop_pct": 1.3, "interpolation": "bilinear"}, (33, 29)),
    "odd border": ({"img_size": (33, 20), "crop_pct": 1.15, "interpolation": "bilinear"}, (47, 31)),
    "odd remainder": ({"img_size": 15, "crop_pct": 0.5}, (90, 47)),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_boxes_are_where_the_transform_puts_them(case: str) -> None:
    """A white box on black: its area in the tensor, and the centre of its light, are those of the box foretold."""
    options, (height, width) = CONFIGS[case]
    config = TransformConfig(mean=(0, 0, 0), std=(1, 1, 1), **options)
    transform, place = make_transform(config, training=False), placement(config, (height, width))
    generator = np.random.default_rng(0)
    for _ in range(20):
        (left, right), (top, bottom) = (
            np.sort(generator.choice(side + 1, 2, replace=False)) for side in (width, height)
        )
        canvas = np.zeros((height, width), np.uint8)
        canvas[top:bottom, left:right] = 255
        light = transform(Image.fromarray(canvas).convert("RGB"))[0].double().numpy()
        x_min, y_min, x_max, y_max = place.box_to_input((left, top, right, bottom))
        assert light.sum() == pytest.approx((x_max - x_min) * (y_max - y_min), rel=0.06, abs=1)
        if min(x_max - x_min, y_max - y_min) > 1:  # of less, no more is seen than one grey pixel
            y, x = (np.arange(side) + 0.5 for side in light.shape)
            centre = (light.sum(0) @ x / light.sum(), light.sum(1) @ y / light.sum())
            assert centre == pytest.approx(((x_min + x_max) / 2, (y_min + y_max) / 2), abs=0.25)


@pytest.mark.parametrize("case", CONFIGS)
def test_a_pixel_of_the_tensor_shows_the_pixel_of_the_image_that_it_is_said_to(case: str) -> None:
    """In an image whose values are its coordinates, bilinear interpolation shows them."""
    options, (height, width) = CONFIGS[case]
    config = TransformConfig(mean=(0, 0, 0), std=(1, 1, 1), **{**options, "interpolation": "bilinear"})
    row, column = np.mgrid[:height, :width].astype(np.uint8)
    pixels = np.stack([column, row, row], axis=2)
    tensor = 255 * make_transform(config, training=False)(Image.fromarray(pixels)).permute(1, 2, 0).numpy()
    rows, columns = tensor.shape[:2]
    points = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1)
    place = placement(config, (height, width))
    seen = place.to_image(points)
    inside = ((seen > 3) & (seen < (width - 3, height - 3))).all(-1)
    assert inside.sum() > 50
    np.testing.assert_allclose(tensor[inside][:, :2] + 0.5, seen[inside], atol=0.55)  # 8 bits are whole numbers
    assert np.abs((tensor[inside][:, :2] + 0.5 - seen[inside]).mean(0)).max() < 0.05
    np.testing.assert_allclose(place.to_input(seen), points, atol=1e-9)


def test_what_is_cropped_away_has_no_area() -> None:
    place = placement(TransformConfig(img_size=10, crop_pct=1.0), (10, 40))
    assert (place.left, place.top) == (15, 0)
    np.testing.assert_array_equal(place.box_to_input((0, 2, 12, 9)), [0, 2, 0, 9])
    np.testing.assert_array_equal(place.box_to_input((12, 2, 18, 11)), [0, 2, 3, 10])


def test_boxes_of_a_folder(photo_folder: Path) -> None:
    lines = all_lines(photo_folder)
    write(photo_folder, *lines[::-1], "", name="boxes.csv")
    data = open_data(photo_folder)
    assert data.has_boxes
    assert data.classes == ("ant", "bee", "cat")
    for split in (data.train, data.val):
        assert isinstance(split, BoxedImages)
        for index, (path, _) in enumerate(split.samples):
            number = int(Path(path).stem)
            assert split.boxes(index) == (number, 2 * number, number + 12, 29)  # the last ones exclusive here


def test_a_named_file_of_boxes_goes_before_that_in_the_folder(photo_folder: Path, tmp_path: Path) -> None:
    write(photo_folder, "this is not read")
    named = write(tmp_path, *(line.replace(",28", ",27") for line in all_lines(photo_folder)), name="other.csv")
    data = open_data("photos", root=tmp_path, boxes=named)
    assert data.val.boxes(0) == (0, 0, 12, 28)
    named.write_bytes("\N{BOM}".encode() + named.read_bytes())  # as Excel writes it
    assert open_data("photos", root=tmp_path, boxes=str(named)).val.boxes(0) == (0, 0, 12, 28)


def test_boxes_of_some_images_are_boxes_of_no_split(photo_folder: Path) -> None:
    lines = all_lines(photo_folder)
    write(photo_folder, *all_lines(photo_folder, "val"), lines[0])
    data = open_data(photo_folder)
    assert not data.has_boxes
    assert isinstance(data.val, BoxedImages)
    assert not isinstance(data.train, BoxedImages)


def test_a_folder_may_hold_a_part_of_the_images_that_have_boxes(photo_folder: Path) -> None:
    write(photo_folder, "train/dog/1.png,0,0,3,3", *all_lines(photo_folder), "val/dog/2.png,0,0,3,3")
    assert open_data(photo_folder).has_boxes


def test_boxes_stay_with_their_images_when_a_folder_is_divided(photo_folder: Path) -> None:
    write(photo_folder / "train", *all_lines(photo_folder / "train"))
    splits = open_folder(photo_folder / "train", seed=1)
    assert [split.boxes(i)[0] for split in (splits.train, splits.val) for i in range(len(split))] == [
        int(Path(path).stem) for split in (splits.train, splits.val) for path, _ in split.samples
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "val/ant/0.png,1,2,3",
            "line 3: expected file,x_min,y_min,x_max,y_max, the last four whole numbers; got 'val/ant",
        ),
        ("val/ant/0.png,1,2,3,4,5", "line 3: expected"),
        ("val/ant/0.png,1,2,3.5,4", "line 3: expected .* got 'val/ant/0.png,1,2,3.5,4'"),
        ("val/ant/0.png,1,2,,4", "line 3: expected"),
        ("val/ant/0.png,5,2,4,4", "line 3: 0 <= x_min <= x_max .* got 5,2,4,4"),
        ("val/ant/0.png,-1,2,4,4", "line 3: 0 <= x_min"),
        (
            "val/ant/9.png,1,2,3,4",
            "line 3: there is no image 'val/ant/9.png' in .*photos, where 'train/ant/1.png' has no box",
        ),
        ("../photos/val/ant/0.png,1,2,3,4", "line 3: there is no image"),
        ("train/ant/0.png,1,2,3,4", "line 3: 'train/ant/0.png' had its box in .*line 2; an image has one"),
        ('"val/ant/0.png,1,2,3,4', "is not a CSV file in UTF-8"),
    ],
)
def test_malformed_lines_are_named(photo_folder: Path, line: str, message: str) -> None:
    file = write(photo_folder, "train/ant/0.png,0,0,3,3", line)
    with pytest.raises(ValueError, match=f"boxes.csv.*{message}"):
        open_data(photo_folder)
    with pytest.raises(ValueError, match=f"boxes.csv.*{message}"):
        open_data(photo_folder, boxes=file)


def test_other_files_are_refused(photo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"there is no file of boxes at .*none\.csv; give a CSV with the columns file,"
    ):
        open_data(photo_folder, boxes=tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("file,x,y,width,height\n")
    with pytest.raises(ValueError, match="line 1: the columns must be file,x_min,y_min,x_max,y_max"):
        open_data(photo_folder, boxes=tmp_path / "other.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="line 1: the columns must be"):
        open_data(photo_folder, boxes=tmp_path / "empty.csv")
    (tmp_path / "latin.csv").write_bytes(f"{HEADER}\nval/ant/\xe9.png,1,2,3,4\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        open_data(photo_folder, boxes=tmp_path / "latin.csv")
    for name in ("digits", "torch/cifar100"):
        with pytest.raises(ValueError, match=f"boxes are for folders of images; got .* for '{name}'"):
            open_data(name, boxes=tmp_path / "other.csv")


def test_a_box_outside_of_its_image_is_named_when_it_is_asked_for(photo_folder: Path) -> None:
    lines = all_lines(photo_folder)
    at = next(i for i, line in enumerate(lines) if line.startswith("val/ant/1.png"))
    lines[at] = "val/ant/1.png,5,5,37,28"
    write(photo_folder, *lines)
    val = open_data(photo_folder).val
    assert val.boxes(2) == (2, 4, 14, 29)
    with pytest.raises(ValueError, match=rf"boxes.csv, line {at + 2}: x_max=37, y_max=28 lies outside .* 37×29 pixels"):
        val.boxes(1)
    (photo_folder / "val" / "bee" / "0.png").write_bytes(b"")
    with pytest.raises(UnreadableImageError, match="the file is empty"):
        val.boxes(3)


def test_batches_with_boxes(photo_folder: Path) -> None:
    write(photo_folder, *all_lines(photo_folder))
    (photo_folder / "val" / "bee" / "0.png").write_bytes(b"damaged")
    data = open_data(photo_folder, img_size=24)
    config = data.transform.replace(crop_pct=0.8)
    for workers in (0, 2):
        loader = make_loader(
            InputBoxes(data.val, config),
            transform=config,
            batch_size=4,
            training=False,
            max_bad_images=1,
            workers=workers,
        )
        images, rows = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert rows[:, :2].tolist() == [[i, i // 3] for i in range(9) if i != 3]  # the damaged one is left out
        place = placement(config, (29, 37))
        for image, row in zip(images, rows, strict=True):
            index = int(row[0])
            assert torch.equal(image, make_transform(config, training=False)(data.val[index][0]))
            np.testing.assert_allclose(row[2:], place.box_to_input(data.val.boxes(index)))


def test_digits_have_boxes_in_their_tensors_too() -> None:
    digits = ClutteredDigits("val", size=20, length=10)
    image, row = InputBoxes(digits, TransformConfig(img_size=20, crop_pct=1.0))[7]
    assert row.tolist() == [7, 7, *digits.boxes(7)]
    assert image.size == (20, 20)
