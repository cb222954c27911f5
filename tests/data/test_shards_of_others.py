"""Tar files as other people's tools and machines leave them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image
from tests.data.layouts import counts, write_images
from tests.made_sets import write_photo

from foveate.commands.shards import ShardsConfig, run
from foveate.data import open_data, open_folder
from foveate.data.shards import index_shard, read_index


def write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def pixels(tmp_path: Path, number: int) -> bytes:
    return write_photo(tmp_path / "photo.png", number, size=(7, 5)).read_bytes()


def labelled(folder: Path, labels: dict[str, list[int]]) -> Path:
    """Write a shard of each split whose images have these labels."""
    for split, numbers in labels.items():
        pairs = [(f"{i}.png", pixels(folder, i)) for i in range(len(numbers))]
        members = [pair for i, pair in enumerate(pairs) for pair in (pair, (f"{i}.cls", b"%d" % numbers[i]))]
        write(folder / f"{split}-000000.tar", members)
    return folder


def test_what_systems_leave_behind_is_skipped_and_endings_are_lower_cased(tmp_path: Path):
    image = [pixels(tmp_path, i) for i in range(3)]
    sidecar = b"\0\5\x16\7" + bytes(100)
    for split in ("train", "val"):
        write(
            tmp_path / f"{split}-000000.tar",
            [
                ("./.DS_Store", sidecar),
                ("./._a.JPG", sidecar),
                ("./a.JPG", image[0]),
                ("./._a.cls", sidecar),
                ("./a.CLS", b"0"),
                ("__MACOSX/._b.PNG", sidecar),
                ("./b.PNG", image[1]),
                ("./b.seg.png", image[0]),
                ("./b.Cls", b"1\n"),
                ("./c.jfif", image[2]),
                ("./c.cls", b"1"),
                ("./Thumbs.db", sidecar),
            ],
        )
        (tmp_path / f"._{split}-000000.tar").write_bytes(sidecar)
    run(ShardsConfig(task=["index", str(tmp_path)]))
    train = open_data(tmp_path).train
    assert [train.sample(i)[1:] for i in range(len(train))] == [(image[0], 0), (image[1], 1), (image[2], 1)]
    run(ShardsConfig(task=["check", str(tmp_path)], decode=True))


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ({"train": [1, 2, 3], "val": [1, 2]}, "1 to 3"),
        ({"train": [0, 1, 4], "val": [0]}, "0 to 1, 4"),
        ({"train": [5, 7], "val": [5]}, "5, 7"),
    ],
)
def test_labels_that_do_not_count_from_0(tmp_path: Path, labels: dict[str, list[int]], shown: str):
    labelled(tmp_path, labels)
    with pytest.raises(ValueError, match=f"has the labels {shown};"):
        run(ShardsConfig(task=["index", str(tmp_path)]))
    assert not (tmp_path / "shards.json").exists()
    (tmp_path / "classes.txt").write_text("zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\n")
    run(ShardsConfig(task=["index", str(tmp_path)]))
    assert open_data(tmp_path).classes[5] == "five"


def test_labels_beyond_the_names_of_classes(tmp_path: Path):
    labelled(tmp_path, {"train": [1, 2], "val": [1]})
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"has the labels 1 to 2, and names of classes 0 to 1 only"):
        run(ShardsConfig(task=["index", str(tmp_path)]))


def test_names_of_classes_with_a_byte_order_mark_and_empty_lines_at_the_end(tmp_path: Path):
    labelled(tmp_path, {"train": [0, 1], "val": [1]})
    (tmp_path / "classes.txt").write_bytes("\ufeffant\r\nbee \r\n\r\n".encode())
    run(ShardsConfig(task=["index", str(tmp_path)]))
    assert read_index(tmp_path).classes == ("ant", "bee")
    for text in ("ant\nant\n", "ant\n\nbee\n"):
        (tmp_path / "classes.txt").write_text(text)
        (tmp_path / "shards.json").unlink()
        with pytest.raises(ValueError, match=r"classes\.txt must have a name in each line"):
            run(ShardsConfig(task=["index", str(tmp_path)]))
        labelled(tmp_path, {"train": [0, 1], "val": [1]})
        (tmp_path / "shards.json").write_text("")


def test_names_of_classes_that_come_later_replace_those_of_the_index(tmp_path: Path):
    labelled(tmp_path, {"train": [0, 1], "val": [1]})
    run(ShardsConfig(task=["index", str(tmp_path)]))
    assert read_index(tmp_path).classes == ("0", "1")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n")
    for _ in range(2):
        run(ShardsConfig(task=["index", str(tmp_path)]))
        assert read_index(tmp_path).classes == ("ant", "bee", "cow")


def test_a_member_that_is_a_link_is_refused_under_any_name(tmp_path: Path):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        info = tarfile.TarInfo("._a.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(ValueError, match="is a link, a device or the like"):
        index_shard(tmp_path / "train-0.tar")


def test_folders_with_unusual_names_become_shards_that_give_the_same(tmp_path: Path):
    """Files without an ending, with another one than their format, with bytes that are no text."""
    photos = write_images(tmp_path / "photos", [f"{split}/{name}" for split in ("train", "val") for name in "ab"], 3)
    for i, name in enumerate((b"x\xff.png", b"no ending", b"y.JPG_large")):
        with open(str(photos / "train" / "a").encode() + b"/" + name, "wb") as file:
            file.write(pixels(tmp_path, 900 + i))
    run(ShardsConfig(task=["make", str(photos)], out=tmp_path / "shards"))
    run(ShardsConfig(task=["check", str(tmp_path / "shards")], decode=True))
    folder, shards = open_folder(photos), open_data(tmp_path / "shards")
    assert counts(folder)["train"] == {"a": 6, "b": 3}
    expected = sorted((Path(path).read_bytes(), label) for path, label in folder.train.samples)
    assert sorted(shards.train.sample(i)[1:] for i in range(9)) == expected
    records, _ = index_shard(tmp_path / "shards" / "train-000000.tar")
    assert records.images == 9


def test_names_that_are_no_text_are_escaped_in_the_index(tmp_path: Path):
    photos = tmp_path / "photos"
    for split in ("train", "val"):
        for name in (b"a\xff", b"b"):
            folder = str(photos / split).encode() + b"/" + name
            for i in range(2):
                write_photo(Path(folder.decode(errors="surrogateescape")) / f"{i}.png", i, size=(7, 5))
    broken = str(photos / "train" / "b").encode() + b"/\xfe.png"
    with open(broken, "wb") as file:
        file.write(b"no image")
    run(ShardsConfig(task=["make", str(photos)], out=tmp_path / "shards", decode=True, max_bad_images=1))
    index = json.loads((tmp_path / "shards" / "shards.json").read_bytes().decode())
    assert index["classes"] == ["a\udcff", "b"]
    assert index["left_out"][0].startswith("train/b/\udcfe.png")
    data = open_data(tmp_path / "shards")
    assert data.classes == open_folder(photos).classes == ("a\udcff", "b")
    assert isinstance(data.train[0][0], Image.Image)


def test_names_of_classes_are_read_before_the_tar_files(tmp_path: Path):
    (tmp_path / "train-000000.tar").write_bytes(b"which would be an error too")
    for content in ("Straße".encode("cp1252"), b"a\na\n"):
        (tmp_path / "classes.txt").write_bytes(content)
        with pytest.raises(ValueError, match=r"classes\.txt"):
            run(ShardsConfig(task=["index", str(tmp_path)]))
