"""Tar files and indices that are damaged, or that somebody made to do harm."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foveate.commands.shards import ShardsConfig, run
from foveate.data import make_loader, open_data
from foveate.data.shards import index_shard, read_index
from foveate.data.shards.index import MAX_MEMBER
from foveate.data.shards.scanning import MAX_HEADER


@pytest.fixture
def shards(photo_folder: Path, tmp_path: Path) -> Path:
    run(ShardsConfig(task=["make", str(photo_folder)], out=tmp_path / "shards", images_per_shard=9))
    return tmp_path / "shards"


def member(name: str, content: bytes = b"", **traits: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for trait, value in traits.items():
        setattr(info, trait, value)
    return info, content


def write(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


LABEL = member("a.cls", b"0")
BAD = {
    "parent": ([member("../a.jpg", b"x"), LABEL], r"a member is called '\.\./a\.jpg'"),
    "inside parent": ([member("b/../../a.jpg", b"x"), LABEL], "such a name is not read"),
    "absolute": ([member("/etc/a.jpg", b"x"), LABEL], r"a member is called '/etc/a\.jpg'"),
    "control": ([member("a\x1b[2J.jpg", b"x"), LABEL], r"a member is called 'a\\x1b"),
    "symbolic link": ([member("a.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), LABEL], "is a link, a device or"),
    "hard link": ([member("a.jpg", type=tarfile.LNKTYPE, linkname="b.jpg"), LABEL], "is a link, a device or the like"),
    "device": ([member("a.jpg", type=tarfile.CHRTYPE), LABEL], "only plain files are read"),
    "pipe": ([member("a.jpg", type=tarfile.FIFOTYPE), LABEL], "only plain files are read"),
    "no label": ([member("a.jpg", b"x"), member("b.jpg", b"y"), LABEL], "the sample /a lacks a .cls"),
    "no image": ([member("a.jpg", b"x"), LABEL, member("c.cls", b"1")], "the sample /c lacks an image"),
    "two images": ([member("a.jpg", b"x"), member("a.png", b"y"), LABEL], "the sample /a has two images"),
    "word": ([member("a.jpg", b"x"), member("a.cls", b"ant")], r"'a\.cls' must hold the number of a class"),
    "negative": ([member("a.jpg", b"x"), member("a.cls", b"-1")], "must hold the number of a class"),
    "long": ([member("a.jpg", b"x"), member("a.cls", b"1" * 5000)], "must hold the number of a class"),
    "empty": ([], "holds no image"),
    "name that fills the memory": ([member("a" * (MAX_HEADER + 1) + ".jpg", b"x")], "a header of [0-9]+ bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(tmp_path: Path, name: str):
    members, message = BAD[name]
    path = write(tmp_path / "train-000000.tar", *members)
    with pytest.raises(ValueError, match=rf"train-000000\.tar.*{message}"):
        index_shard(path)
    with pytest.raises(ValueError, match=message):
        run(ShardsConfig(task=["index", str(tmp_path)]))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["train-000000.tar"]  # nothing is unpacked or left


def test_a_member_larger_than_any_image(tmp_path: Path):
    path = tmp_path / "train-0.tar"
    info = tarfile.TarInfo("a.jpg")
    info.size = MAX_MEMBER + 1
    with path.open("wb") as file:
        file.write(info.tobuf())
        file.truncate(2 * MAX_MEMBER)
    with pytest.raises(ValueError, match=rf"'a\.jpg' has {MAX_MEMBER + 1} bytes; at most {MAX_MEMBER} are read"):
        index_shard(path)


def test_a_tar_file_cut_off_anywhere_is_an_error_and_never_a_shorter_set(shards: Path):
    path = shards / "train-000000.tar"
    whole = path.read_bytes()
    images = index_shard(path)[0].images
    for length in [*range(0, len(whole) - 1024, 457), len(whole) - 1025, len(whole) - 1024]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"train-000000\.tar"):
            index_shard(path)
        with pytest.raises(ValueError, match=rf"train-000000\.tar is truncated: it has {length} bytes and should have"):
            open_data(shards)
    path.write_bytes(whole)
    assert index_shard(path)[0].images == images == 9


@pytest.mark.slow
def test_damaged_bytes_never_crash_the_scan(shards: Path):
    path = shards / "train-000000.tar"
    whole = path.read_bytes()
    sound, found = index_shard(path)
    outcomes = set()
    for trial in range(300):
        generator = np.random.default_rng(trial)
        damaged = bytearray(whole)
        header = int(generator.choice(found[:, 0])) - 512
        for at in generator.integers(header, header + 512, 1 + trial % 5):
            damaged[at] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            shard, _ = index_shard(path)
        except ValueError as error:
            assert "train-000000.tar" in str(error)  # noqa: PT017
            outcomes.add("refused")
        else:
            assert shard.sha256 != sound.sha256 or bytes(damaged) == whole
            outcomes.add("read")
    assert "refused" in outcomes


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_headers_that_nest_for_ever(tmp_path: Path, kind: bytes):
    info = tarfile.TarInfo("a")
    info.type, info.size = kind, 10
    content = b"10 path=ab" if kind == b"x" else b"aaaaaaaaa\0"
    path = tmp_path / "train-0.tar"
    path.write_bytes((info.tobuf() + content.ljust(512, b"\0")) * 5000)
    with pytest.raises(ValueError, match=r"train-0\.tar"):
        index_shard(path)


def test_links_out_of_the_folder_and_names_without_a_split(shards: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "train-000000.tar"
    link.symlink_to(shards / "train-000000.tar")
    with pytest.raises(ValueError, match=r"is a link to .*outside of the folder"):
        run(ShardsConfig(task=["index", str(link.parent)]))
    link.rename(link.with_name("photos.tar"))
    with pytest.raises(ValueError, match=r"photos\.tar tells no split; call it train-000000\.tar"):
        run(ShardsConfig(task=["index", str(link.parent)]))
    with pytest.raises(ValueError, match=r"there is no shards\.json in .*`foveate shards index"):
        open_data(link.parent)


CHANGES = {
    "not json": lambda index: "{",
    "a list": lambda index: [],
    "another format": lambda index: index | {"format": "webdataset"},
    "a newer version": lambda index: index | {"version": 2},
    "no classes": lambda index: index | {"classes": []},
    "an unknown field": lambda index: index | {"run": "rm"},
    "an unknown split": lambda index: index | {"shards": {"extra": []}},
    "a name in another folder": lambda index: renamed(index, "../train-000000.tar"),
    "an absolute name": lambda index: renamed(index, "/train-000000.tar"),
    "a name twice": lambda index: renamed(index, "train-000001.tar"),
    "more images than bytes": lambda index: changed(index, images=10**9),
    "no images": lambda index: changed(index, images=0),
    "a fraction": lambda index: changed(index, bytes=0.5),
    "a short digest": lambda index: changed(index, sha256="abc"),
}


def changed(index: dict, **values: object) -> dict:
    index["shards"]["train"][0].update(values)
    return index


def renamed(index: dict, name: str) -> dict:
    return changed(index, name=name)


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_that_is_damaged(shards: Path, change: str):
    path = shards / "shards.json"
    damaged = CHANGES[change](json.loads(path.read_text()))
    path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    with pytest.raises(ValueError, match=r"shards\.json is damaged, or not what `foveate shards` writes"):
        open_data(shards)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((-1, 5, 0), "does not fit"),
        ((0, 5, 0), "does not fit"),
        ((10**9, 5, 0), "does not fit"),
        ((512, -5, 0), "does not fit"),
        ((512, 2**62, 0), "does not fit"),
        ((512, 5, 3), "does not fit"),
        (None, "missing or damaged"),
    ],
)
def test_records_that_point_out_of_their_shard(shards: Path, row: tuple | None, message: str):
    path = shards / "train-000000.idx"
    records = np.fromfile(path, "<i8").reshape(-1, 3)
    if row is None:
        records = records[1:]
    else:
        records[4] = row
    records.tofile(path)
    with pytest.raises(ValueError, match=rf"train-000000\.idx.*{message}.*`foveate shards index"):
        open_data(shards)  # whose first images are looked at
    with pytest.raises(ValueError, match=r"1 thing\(s\) wrong[^$]*train-000000\.idx"):
        run(ShardsConfig(task=["check", str(shards)]))
    run(ShardsConfig(task=["index", str(shards)]))
    run(ShardsConfig(task=["check", str(shards)]))


def test_a_shard_that_shrinks_while_it_is_read(shards: Path):
    train = open_data(shards).train
    (shards / "train-000001.tar").write_bytes(b"")
    loader = make_loader(train, transform=lambda image: 0, batch_size=8, training=False, max_bad_images=9)
    assert sum(len(labels) for _, labels in loader) == 15
    assert {bad.reason for bad in loader.bad_images} == {"the shard ends before or inside of it"}
    assert len(loader.bad_images) == 9


def test_what_says_where_images_are_is_missed_at_once(shards: Path):
    next(shards.glob("val*.idx")).unlink()
    with pytest.raises(ValueError, match=r"val.*idx is missing"):
        open_data(shards)


def test_a_shard_that_is_missing_or_another(shards: Path):
    (shards / "train-000001.tar").rename(shards / "moved")
    with pytest.raises(ValueError, match=r"the shard .*train-000001\.tar is missing; fetch it again"):
        open_data(shards)
    content = bytearray((shards / "moved").read_bytes())
    content[512 + 40] ^= 1  # a bit of the first image
    (shards / "train-000001.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"train-000001\.tar is not the shard in the index: 9 images"):
        run(ShardsConfig(task=["check", str(shards)]))


def test_a_set_without_validation_images(shards: Path, photo: Callable[..., Path]):
    for path in shards.glob("val-*"):
        path.unlink()
    run(ShardsConfig(task=["index", str(shards)]))
    assert read_index(shards).classes == ("ant", "bee", "cat")
    with pytest.raises(ValueError, match=re.escape("has no shards called val-000000.tar; make some, or rename")):
        open_data(shards)


def test_a_record_of_more_than_any_image_is_not_read(shards: Path):
    index = json.loads((shards / "shards.json").read_text())
    with (shards / "train-000000.tar").open("r+b") as file:
        file.truncate(2**40)  # takes no room on the disk
    index["shards"]["train"][0]["bytes"] = 2**40
    (shards / "shards.json").write_text(json.dumps(index))
    records = np.fromfile(shards / "train-000000.idx", "<i8").reshape(-1, 3)
    records[0] = (512, 2**39, 0)
    records.tofile(shards / "train-000000.idx")
    with pytest.raises(ValueError, match="does not fit"):
        open_data(shards).train[0]


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.idx"])
def test_a_link_out_of_the_folder_is_not_opened(shards: Path, tmp_path: Path, name: str):
    (shards / name).replace(tmp_path / "elsewhere")
    (shards / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{name} is, or is behind, a link to"):
        open_data(shards).train[0]
