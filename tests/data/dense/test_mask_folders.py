from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.dense.made import write_mask, write_masks
from tests.made_sets import write_photo

from foveate.data import UnreadableImageError
from foveate.data.dense import VOID, open_segmentation
from foveate.data.dense.masks import read_mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_masks(tmp_path / "set", {"train": 6, "val": 2, "test": 3})


def test_images_with_their_masks(folder: Path):
    data = open_segmentation(folder)
    assert data.classes == ("0", "1", "2")
    assert [data.length(split) for split in ("train", "val", "test")] == [6, 2, 3]
    for split in ("train", "val", "test"):
        for number, (name, _) in enumerate(data.entries(split)):
            image, mask = data.split(split)[number]
            assert name == f"{split}/images/{number}.jpg"
            np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(folder / name)))
            assert mask.dtype == np.uint8
            expected = np.random.default_rng(number).integers(0, 3, (29, 37))  # as they were written
            np.testing.assert_array_equal(mask, expected)
    assert data.image_size == (32, 32)
    assert data.transform.fit == "pad"


def test_a_missing_validation_split_is_kept_from_training(tmp_path: Path):
    (write_masks(tmp_path, {"train": 10}) / "train").rename(tmp_path / "set")
    seen = []
    for seed in (0, 0, 1):
        data = open_segmentation("set", root=tmp_path, seed=seed)
        names = [[name for name, _ in data.entries(split)] for split in ("train", "val")]
        assert [len(part) for part in names] == [8, 2]
        assert sorted(names[0] + names[1]) == sorted(f"images/{number}.jpg" for number in range(10))
        assert data.test is None
        seen.append(names)
    assert seen[0] == seen[1] != seen[2]


def test_default_size_is_that_of_the_images(tmp_path: Path):
    for size, expected in {(480, 360): (352, 480), (1000, 500): (256, 512), (20, 9): (32, 32)}.items():
        root = write_masks(tmp_path / str(size), {"train": 1, "val": 1}, size=size)
        assert open_segmentation(root).image_size == expected
    assert open_segmentation(root, img_size=(64, 40)).image_size == (64, 40)


@pytest.mark.parametrize(
    ("file", "content", "options", "classes", "indices"),
    [
        (None, "", {}, ("0", "1", "2", "3"), [0, 1, 2, 3, VOID]),
        (None, "", {"void": 3}, ("0", "1", "2"), [0, 1, 2, VOID, VOID]),
        (None, "", {"void": [0, 2]}, ("1", "3"), [VOID, 0, VOID, 1, VOID]),
        (None, "", {"classes": ["sky", "road", "car"], "void": 3}, ("sky", "road", "car"), [0, 1, 2, VOID, VOID]),
        ("classes.txt", "sky\nroad\r\ncar\nnothing\n\n", {}, ("sky", "road", "car", "nothing"), [0, 1, 2, 3, VOID]),
        ("classes.txt", "\ufeffnothing\nroad\ncar\nsky", {"void": 0}, ("road", "car", "sky"), [VOID, 0, 1, 2, VOID]),
        ("classes.csv", "index,name\n3,d\n1,b\n0,a\n2,c\n", {}, ("a", "b", "c", "d"), [0, 1, 2, 3, VOID]),
        ("classes.csv", "name,index,void\na,0,no\nb,1,yes\nc,2,\nd,3,0\n", {}, ("a", "c", "d"), [0, VOID, 1, 2, VOID]),
        ("classes.csv", "index,name\n0,a\n1,b\n2,c\n3,d\n255,void\n", {}, ("a", "b", "c", "d"), [0, 1, 2, 3, VOID]),
    ],
)
def test_names_of_classes_and_what_is_void(
    tmp_path: Path, file: str | None, content: str, options: dict, classes: tuple, indices: list
):
    for split in ("train", "val"):
        write_photo(tmp_path / split / "images" / "a.png", size=(5, 1))
        write_mask(tmp_path / split / "masks" / "a.png", np.array([[0, 1, 2, 3, 255]]))
    if file is not None:
        (tmp_path / file).write_text(content, "utf-8")
    data = open_segmentation(tmp_path, options=options)
    assert data.classes == classes
    assert data.val[0][1].tolist() == [indices]


def test_foreground_that_is_void_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name, values in (("a", [[0, 0, 255]]), ("b", [[0, 255, 255]]), *((name, [[0, 0, 0]]) for name in "cdef")):
        write_photo(tmp_path / "images" / f"{name}.1.jpg", size=(3, 1))
        write_mask(tmp_path / "masks" / f"{name}.1.png", np.array(values))
    (tmp_path / "classes.txt").write_text("background\nship\n")
    assert open_segmentation(tmp_path).classes == ("background", "ship")
    assert any("255 is void" in record.getMessage() for record in caplog.records)


def test_names_with_dots_and_images_without_an_ending(tmp_path: Path):
    for name in "abcde":
        photo = write_photo(tmp_path / "images" / "site.1" / f"{name}.jpg", size=(3, 2))
        photo.rename(photo.with_suffix(""))
        write_mask(tmp_path / "masks" / "site.1" / f"{name}.png", np.array([[0, 1, 1], [1, 0, 0]]))
    data = open_segmentation(tmp_path)
    assert (data.length("train"), data.length("val")) == (4, 1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [False, True])
def test_values_are_kept_at_every_depth(tmp_path: Path, bits: int, palette: bool):
    values = np.arange(28).reshape(4, 7) % 2**bits
    image = Image.fromarray(values.astype(np.uint8))
    if palette:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([9, 8, 7] * 2**bits)
        image.save(tmp_path / "a.png", bits=bits)
    else:
        write_gray(tmp_path / "a.png", values, bits)
    np.testing.assert_array_equal(read_mask(str(tmp_path / "a.png")), values)


def write_gray(path: Path, values: np.ndarray, bits: int) -> None:
    """Write a gray PNG of so many bits, which Pillow does not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    rows = b""
    for row in values:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        rows += b"\0" + int(digits.ljust(-(-len(digits) // 8) * 8, "0"), 2).to_bytes(-(-len(digits) // 8), "big")
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def another_size(root: Path) -> Path:
    return write_mask(root / "val" / "masks" / "1.png", np.zeros((28, 37)))


def turned(root: Path) -> Path:
    return write_mask(root / "val" / "masks" / "1.png", np.zeros((37, 29)))


def beyond(root: Path) -> Path:
    return write_mask(root / "val" / "masks" / "1.png", np.full((29, 37), 3))


def in_color(root: Path) -> Path:
    Image.new("RGB", (37, 29)).save(root / "val" / "masks" / "1.png")
    return root / "val" / "masks" / "1.png"


def of_16_bits(root: Path) -> Path:
    Image.fromarray(np.zeros((29, 37), np.uint16)).save(root / "val" / "masks" / "1.png")
    return root / "val" / "masks" / "1.png"


def broken(root: Path) -> Path:
    path = root / "val" / "masks" / "1.png"
    path.write_bytes(path.read_bytes()[:-300])
    return path


def empty(root: Path) -> Path:
    (root / "val" / "masks" / "1.png").write_bytes(b"")
    return root / "val" / "masks" / "1.png"


def jpeg(root: Path) -> Path:
    Image.new("L", (37, 29)).save(root / "val" / "masks" / "1.png", format="JPEG")
    return root / "val" / "masks" / "1.png"


def broken_image(root: Path) -> Path:
    (root / "val" / "images" / "1.jpg").write_bytes(b"no image")
    return root / "val" / "images" / "1.jpg"


BAD = [another_size, turned, beyond, in_color, of_16_bits, broken, empty, jpeg, broken_image]


@pytest.mark.parametrize("spoil", BAD)
def test_bad_masks_are_named_counted_and_left_out(folder: Path, spoil: Callable[[Path], Path]):
    path = spoil(folder)
    data = open_segmentation(folder, max_bad_images=1)
    with pytest.raises(UnreadableImageError, match=path.name):
        data.val[1]
    loader = data.loaders(batch_size=2).val
    assert [len(images) for images, _ in loader] == [1]
    assert [bad.path for bad in loader.bad_images] == [str(path)]
    with pytest.raises(ValueError, match=f"{path.name}.*"):
        list(open_segmentation(folder).loaders(batch_size=2).val)


def test_an_image_without_a_mask_is_known_at_once(folder: Path):
    (folder / "train" / "masks" / "4.png").unlink()
    with pytest.raises(ValueError, match=r"4\.jpg"):
        open_segmentation(folder)
    loader = open_segmentation(folder, max_bad_images=1).loaders(batch_size=5).train
    assert sum(len(images) for images, _ in loader) in (4, 5)  # the last image of six may be the one


def no_masks(root: Path) -> None:
    for mask in (root / "train" / "masks").iterdir():
        mask.unlink()


def no_folder_of_masks(root: Path) -> None:
    no_masks(root)
    (root / "train" / "masks").rmdir()


def mask_alone(root: Path) -> None:
    (root / "val" / "images" / "1.jpg").unlink()


def two_images_of_a_name(root: Path) -> None:
    write_photo(root / "val" / "images" / "1.png")


def masks_of_another_format(root: Path) -> None:
    Image.new("L", (37, 29)).save(root / "val" / "masks" / "1.tif")


def link_out(root: Path) -> None:
    write_photo(root.parent / "outside.jpg")
    (root / "val" / "images" / "1.jpg").unlink()
    (root / "val" / "images" / "1.jpg").symlink_to(root.parent / "outside.jpg")


def class_twice(root: Path) -> None:
    (root / "classes.txt").write_text("a\nb\na")


def class_without_name(root: Path) -> None:
    (root / "classes.txt").write_text("a\n\nb")


def table_without_columns(root: Path) -> None:
    (root / "classes.csv").write_text("0,a\n1,b\n")


def table_with_an_index_twice(root: Path) -> None:
    (root / "classes.csv").write_text("index,name\n0,a\n0,b\n")


def table_with_a_wrong_index(root: Path) -> None:
    (root / "classes.csv").write_text("index,name\n0,a\n256,b\n")


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (no_masks, "masks"),
        (no_folder_of_masks, "masks"),
        (mask_alone, r"1\.png"),
        (two_images_of_a_name, r"1\.png"),
        (masks_of_another_format, r"1\.tif"),
        (link_out, r"outside\.jpg"),
        (class_twice, "classes.txt.*'a'"),
        (class_without_name, "classes.txt"),
        (table_without_columns, "classes.csv"),
        (table_with_an_index_twice, "classes.csv, line 3"),
        (table_with_a_wrong_index, "classes.csv, line 3"),
    ],
)
def test_folders_that_are_not_laid_out_so(folder: Path, spoil: Callable[[Path], None], field: str):
    spoil(folder)
    with pytest.raises(ValueError, match=field):
        open_segmentation(folder, max_bad_images=9)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"options": {"viod": 11}}, "void"),
        ({"options": {"void": 256}}, "void"),
        ({"options": {"void": "sky"}}, "void"),
        ({"options": {"classes": "sky"}}, "classes"),
        ({"options": {"classes": []}}, "classes"),
        ({"options": {"classes": ["a", "b", "a"]}}, "classes"),
        ({"max_bad_images": -1}, "max_bad_images"),
        ({"seed": -1}, "seed"),
        ({"img_size": (0, 5)}, "img_size"),
        ({"intensity_range": (5, 5)}, "intensity_range"),
    ],
)
def test_bad_arguments(folder: Path, arguments: dict, field: str):
    with pytest.raises(ValueError, match=field):
        open_segmentation(folder, **arguments)


def test_no_such_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="did you mean 'torchvision/VOCSegmentation'"):
        open_segmentation("torchvision/VOCSegmentaton", root=tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        open_segmentation("camvid", root=tmp_path)
    with pytest.raises(ValueError, match="images"):
        open_segmentation(tmp_path)
