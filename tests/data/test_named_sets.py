from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from tests.made_sets import write_pets

from foveate.data import UnreadableImageError, make_loader, open_data, open_named
from foveate.data.named import NAMED_SETS, NamedImages


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Return a root that holds a small Oxford-IIIT Pet in its published layout."""
    return write_pets(tmp_path, {"trainval": (20, 20), "test": (7, 7)}, [("Abyssinian", 1), ("great_pyrenees", 2)])


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Return a root that holds a small MNIST in its published format; image i is a bright row i of label i % 10."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in {"train": 100, "t10k": 20}.items():
        images = np.zeros((count, 28, 28), np.uint8)
        for i in range(count):
            images[i, i % 28] = 100 + i
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    return tmp_path


def labels(images: object) -> list[int]:
    return [images[i][1] for i in range(len(images))]


def test_torchvision_set_without_validation_images(pets: Path):
    data = open_data("torchvision/OxfordIIITPet", root=pets, seed=1)
    assert data.classes == ("Abyssinian", "Great Pyrenees")
    assert [Counter(labels(split)) for split in (data.train, data.val, data.test)] == [
        {0: 18, 1: 18},
        {0: 2, 1: 2},
        {0: 7, 1: 7},
    ]
    published = torchvision.datasets.OxfordIIITPet(pets, "test")
    for i in (0, 13):
        np.testing.assert_array_equal(np.asarray(data.test[i][0]), np.asarray(published[i][0]))
    pixels = [split[i][0].tobytes() for split in (data.train, data.val) for i in range(len(split))]
    assert len(set(pixels)) == 40  # disjoint, and nothing is lost
    assert data.image_size == (224, 224)
    same, other = (open_data("torchvision/OxfordIIITPet", root=pets, seed=seed) for seed in (1, 2))
    assert same.val.indices == data.val.indices != other.val.indices


def test_set_in_one_piece(tmp_path: Path, photo: Callable[..., Path]):
    for name in ("Forest", "River"):
        for i in range(30):
            photo(tmp_path / "eurosat" / "2750" / name / f"{name}_{i}.jpg", size=(64, 64))
    data = open_data("torchvision/EuroSAT", root=tmp_path)
    assert data.classes == ("Forest", "River")
    assert [len(data.train), len(data.val), data.test] == [54, 6, None]
    assert data.image_size == (64, 64)
    with pytest.raises(ValueError, match="torchvision/EuroSAT has no labelled test images; use its 'val' split"):
        data.split("test")


def test_set_with_its_own_validation_images(tmp_path: Path, photo: Callable[..., Path]):
    texture = tmp_path / "dtd" / "dtd"
    (texture / "labels").mkdir(parents=True)
    for split, count in {"train": 4, "val": 3, "test": 2}.items():
        files = [f"{name}/{name}_{split}{i}.jpg" for name in ("banded", "dotted") for i in range(count)]
        (texture / "labels" / f"{split}1.txt").write_text("\n".join(files) + "\n")
        for number, file in enumerate(files):
            photo(texture / "images" / file, number=number)
    data = open_data("torchvision/DTD", root=tmp_path)
    assert [labels(split) for split in (data.train, data.val, data.test)] == [[0] * n + [1] * n for n in (4, 3, 2)]


@pytest.mark.parametrize("name", ["torch/mnist", "torchvision/MNIST"])
def test_the_same_files_through_timm_and_torchvision(mnist: Path, name: str):
    data = open_data(name, root=mnist)
    assert data.num_classes == 10
    assert data.classes[3].startswith("3")
    assert [len(data.train), len(data.val), len(data.test)] == [90, 10, 20]
    assert sorted(labels(data.val)) == list(range(10))
    for split, i in ((data.test, 13), (data.train, 0)):
        image, label = split[i]
        rows = np.asarray(image)  # greyscale in the files, RGB here
        assert rows.shape == (28, 28, 3)
        number = int(rows.max()) - 100
        assert label == number % 10
        assert (rows[number % 28] == 100 + number).all()
    assert data.image_size == (28, 28)
    assert data.transform.hflip == 0  # a mirrored digit is none


def test_food_from_its_json_files(tmp_path: Path, photo: Callable[..., Path]):
    meta = tmp_path / "food-101" / "meta"
    meta.mkdir(parents=True)
    for split, count in {"train": 10, "test": 3}.items():
        (meta / f"{split}.json").write_text(
            json.dumps({n: [f"{n}/{split}{i}" for i in range(count)] for n in ("pie", "soup")})
        )
        for name in ("pie", "soup"):
            for i in range(count):
                photo(tmp_path / "food-101" / "images" / name / f"{split}{i}.jpg")
    splits = open_named("torchvision/Food101", root=tmp_path)
    assert splits.classes == ("pie", "soup")
    assert Counter(labels(splits.train)) == {0: 9, 1: 9}
    assert Counter(labels(splits.val)) == {0: 1, 1: 1}
    assert labels(splits.test) == [0] * 3 + [1] * 3


def test_an_unreadable_image_is_named(pets: Path):
    broken = pets / "oxford-iiit-pet" / "images" / "Abyssinian_test3.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    data = open_data("torchvision/OxfordIIITPet", root=pets, max_bad_images=1)
    with pytest.raises(UnreadableImageError, match=r"Abyssinian_test3\.jpg"):
        data.test[3]
    loader = make_loader(data.test, transform=data.transform, batch_size=5, training=False, max_bad_images=1)
    assert sum(len(batch) for _, batch in loader) == 13
    assert [bad.path for bad in loader.bad_images] == [str(broken)]


@pytest.mark.parametrize("name", NAMED_SETS)
def test_missing_files_are_said_to_be_missing_where_they_were_looked_for(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=f"cannot open {name} in {tmp_path}: ") as caught:
        open_data(name, root=tmp_path)
    message = str(caught.value)
    assert "Unknown value" not in message  # the table spells the splits as torchvision does
    assert ("--download" in message) == NAMED_SETS[name].fetched
    assert ("cannot be downloaded; lay its files out as" in message) != NAMED_SETS[name].fetched


def test_a_missing_folder_is_not_created(tmp_path: Path):
    for name in ("torch/cifar100", "torchvision/Caltech101"):
        with pytest.raises(
            ValueError, match=f"cannot open {name} in {tmp_path}/sets: there is no such folder; .* --download"
        ):
            open_data(name, root=tmp_path / "sets")
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch/cifar1000", "got 'torch/cifar1000'; did you mean 'torch/cifar100'"),
        ("torchvision/OxfordPet", "did you mean 'torchvision/OxfordIIITPet'"),
        ("torchvision/CocoDetection", "the name of a data set must be one of torch/cifar10, "),
        ("torch/image_folder", "the name of a data set must be one of torch/cifar10, "),
        ("digit", "no data set is called 'digit' and there is no folder digit; did you mean 'digits'"),
        ("hfds/food101", "no data set is called 'hfds/food101' and there is no folder"),
    ],
)
def test_unknown_names(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        open_data(name)


def test_classes_that_share_a_word_are_called_by_their_numbers():
    class Set:
        classes = (("tench", "Tinca tinca"), ("crane",), ("crane",))
        wnids = ("n01440764", "n02012849", "n03126707")

    assert NamedImages(Set(), "set").classes == ("n01440764", "n02012849", "n03126707")
    Set.classes = (("tench", "Tinca tinca"), ("crane",), ("crane, the machine",))
    assert NamedImages(Set(), "set").classes == ("tench", "crane", "crane, the machine")


def test_images_can_be_looked_at_one_after_the_other(mnist: Path):
    data = open_data("torchvision/MNIST", root=mnist)
    assert [label for _, label in data.test] == [number % 10 for number in range(20)]
    for index in (20, -1):
        with pytest.raises(IndexError):
            data.test[index]


def test_faces_whose_test_images_have_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pixels = " ".join(["7"] * 48 * 48)
    (tmp_path / "fer2013").mkdir()
    train, test = ("emotion,pixels\n" + f"1,{pixels}\n2,{pixels}\n" * 20, f"pixels\n{pixels}\n")
    (tmp_path / "fer2013" / "train.csv").write_text(train)
    (tmp_path / "fer2013" / "test.csv").write_text(test)
    monkeypatch.setattr("torchvision.datasets.fer2013.check_integrity", lambda *_, **__: True)
    data = open_data("torchvision/FER2013", root=tmp_path)
    assert data.test is None
    assert data.length("train") + data.length("val") == 40


def test_damage_that_torchvision_only_asserts_is_a_value_error(mnist: Path):
    for path in (mnist / "MNIST" / "raw").iterdir():
        path.write_bytes(bytes(32))
    with pytest.raises(ValueError, match="cannot open torchvision/MNIST"):
        open_data("torchvision/MNIST", root=mnist)


def test_an_image_that_is_too_narrow_is_called_by_its_name(pets: Path):
    narrow = min((pets / "oxford-iiit-pet" / "images").iterdir())
    Image.new("RGB", (2, 5000)).save(narrow)
    data = open_data("torchvision/OxfordIIITPet", root=pets, max_bad_images=1)
    bad = []
    for images in (data.train, data.val, data.test):
        loader = make_loader(images, transform=data.transform, batch_size=9, training=False, max_bad_images=1)
        list(loader)
        bad += [found.path for found in loader.bad_images]
    assert bad == [str(narrow)]
