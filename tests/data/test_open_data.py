from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from tests.made_sets import write_photo

from foveate.data import BoxedImages, open_data


def test_digits_with_options():
    data = open_data(
        "digits", seed=2, img_size=32, options={"clutter": 3, "length": 30, "val_length": 11, "test_length": 13}
    )
    assert [len(data.train), len(data.val), len(data.test)] == [30, 11, 13]
    assert {(split.size, split.clutter, split.seed) for split in (data.train, data.val, data.test)} == {(32, 3, 2)}
    assert [split.split for split in (data.train, data.val, data.test)] == ["train", "val", "test"]
    assert data.image_size == (32, 32)
    assert data.train[0][0].size == (32, 32)
    assert data.classes == tuple("0123456789")
    assert data.split("test") is data.test
    assert (data.transform.hflip, data.transform.crop) == (0, "none")


def test_boxes_are_offered_where_there_are_any(photo_folder: Path):
    assert open_data("digits").has_boxes
    assert isinstance(open_data("digits").test, BoxedImages)
    assert not open_data(photo_folder).has_boxes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "digits", "options": {"cluter": 3}}, "option of 'digits' must be one of .*; did you mean 'clutter'"),
        ({"name": "digits", "options": {"clutter": -3}}, "clutter must be at least 0; got -3"),
        ({"name": "digits", "options": {"size": 64}, "img_size": 48}, "got img_size=48 and size=64. Give one integer"),
        ({"name": "digits", "img_size": (48, 64)}, r"canvas of 'digits' is square .* got img_size=\(48, 64\)"),
        ({"name": "digits", "img_size": 8}, "size must be at least 16; got 8"),
        ({"name": "digits", "seed": -1}, "seed must be at least 0; got -1"),
        ({"name": "digits", "max_bad_images": -1}, "max_bad_images must be at least 0; got -1"),
        (
            {"name": "torch/cifar100", "options": {"size": 4}},
            "options are for 'digits' only; 'torch/cifar100' takes none, got size",
        ),
    ],
)
def test_bad_arguments(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        open_data(**arguments)


@pytest.mark.parametrize("img_size", [0, -8, 2.5, "large", (32,), (32, 32, 3)])
def test_bad_sizes(photo_folder: Path, img_size: object):
    with pytest.raises(ValueError, match="img_size must be"):
        open_data(photo_folder, img_size=img_size)


def test_a_split_that_is_none():
    with pytest.raises(ValueError, match="split must be one of train, val, test; got 'tests'; did you mean 'test'"):
        open_data("digits").split("tests")


def test_an_archive_of_the_images_may_be_left_beside_them(tmp_path: Path):
    for label, number in itertools.product(("ant", "bee"), range(9)):
        write_photo(tmp_path / f"{label}-{number}.jpg", number=number)
    lines = [f"{path.name},{path.name.split('-')[0]}" for path in tmp_path.glob("*.jpg")]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    (tmp_path / "images.tar").touch()
    data = open_data(tmp_path)
    assert data.classes == ("ant", "bee")
    assert data.length("train") + data.length("val") == 18
