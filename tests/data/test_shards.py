"""Shards: what goes in comes out, once an epoch, in an order that anybody can continue."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from foveate.commands.shards import ShardsConfig, run
from foveate.data import ShardImages, TransformConfig, make_loader, open_data, open_folder
from foveate.data.shards import ShardOrder, make_shards

HEAVY = TransformConfig(img_size=(24, 18), auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5, scale=(0.3, 1.0))


@pytest.fixture
def shards(photo_folder: Path, tmp_path: Path) -> Path:
    """Return `photo_folder` (24 and 9 images) in shards of 5, 5, 5, 5, 4 and of 5, 4 images."""
    run(ShardsConfig(task=["make", str(photo_folder)], out=tmp_path / "shards", images_per_shard=5))
    return tmp_path / "shards"


def same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_bytes_and_labels_are_those_of_the_folder(photo_folder: Path, shards: Path):
    folder, data = open_folder(photo_folder), open_data(shards)
    assert (data.classes, data.transform.img_size) == (folder.classes, (folder.img_size, folder.img_size))
    for split in ("train", "val"):
        images = data.split(split)
        assert isinstance(images, ShardImages)
        found = [images.sample(i) for i in range(len(images))]
        expected = [(Path(path).read_bytes(), label) for path, label in getattr(folder, split).samples]
        pairs = [(sample.content, sample.label) for sample in found]
        assert sorted(pairs) == sorted(expected)
        assert (pairs == expected) == (split == "val")  # the training images are shuffled, once
        image, label = images[3]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(found[3].content))))
        assert label == found[3].label
    for index in (24, -1):
        with pytest.raises(IndexError):
            data.train[index]


def test_webdataset_reads_what_we_write(photo_folder: Path, shards: Path):
    paths = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False).to_tuple("png", "cls"))
    ours = open_data(shards).train
    assert [(content, int(label)) for content, label in samples] == [ours.sample(i)[1:] for i in range(24)]


@pytest.mark.parametrize("length", [10, 150])  # 150: a name that needs a header of its own
def test_we_read_what_webdataset_writes(photo: Callable[..., Path], tmp_path: Path, length: int):
    expected = {}
    for split, sizes in {"train": (7, 1, 4), "val": (3,)}.items():
        for number, size in enumerate(sizes):
            with webdataset.TarWriter(str(tmp_path / f"mine-{split}-{number:03d}.tar")) as writer:
                for i in range(size):
                    path = photo(tmp_path / "photo.jpg", number=100 * number + i)
                    key = f"some.folder/{split}{number}-{i}".ljust(length, "x")
                    writer.write({"__key__": key, "jpg": path.read_bytes(), "cls": i % 3, "json": {"a": 1}})
                    expected.setdefault(split, []).append((path.read_bytes(), i % 3))
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    run(ShardsConfig(task=["index", str(tmp_path)]))
    data = open_data(tmp_path)
    assert (data.classes, data.image_size) == (("ant", "bee", "cat"), (29, 29))
    for split, pairs in expected.items():
        images = data.split(split)
        assert [images.sample(i)[1:] for i in range(len(images))] == pairs
    run(ShardsConfig(task=["check", str(tmp_path)], decode=True))


@pytest.mark.parametrize("sizes", [[23], [1, 1, 1], [5, 1, 7, 30, 2, 11], [3] * 40, [*range(1, 50)]])
@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_the_order_is_a_permutation_whatever_the_shards_and_however_it_is_cut(sizes: list[int], lanes: int):
    size = sum(sizes)
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        order = ShardOrder(sizes, seed=seed, epoch=epoch, lanes=lanes)
        whole = list(order.at(range(size)))
        assert sorted(whole) == list(range(size))
        for piece in (range(size // 3, size), range(2, size, 5), range(7, 7)):
            assert list(order.at(piece)) == [whole[i] for i in piece]
        orders.append(tuple(whole))
    assert len(set(orders)) == 3 or size == 3


def test_longer_than_what_is_computed_at_a_time():
    sizes = [1009, 4999, 3001, 2, 7919]
    order = ShardOrder(sizes, seed=3, epoch=5, lanes=3)
    whole = list(order.at(range(sum(sizes))))
    assert sorted(whole) == list(range(sum(sizes)))
    assert list(order.at(range(1, sum(sizes), 2))) == whole[1::2]


def test_few_shards_are_read_at_a_time_and_ranks_keep_to_their_own():
    sizes = [40 + i % 7 for i in range(160)]
    ends, size = np.cumsum(sizes), sum(sizes)
    order = ShardOrder(sizes, seed=0, epoch=0, lanes=16)
    of = np.searchsorted(ends, list(order.at(range(size))), side="right")
    for start in range(0, size - 64, 64):
        assert 8 <= len(set(of[start : start + 64])) <= 32  # at most two of each stretch
    for world_size in (2, 4, 8):
        read = Counter(shard for rank in range(world_size) for shard in set(of[rank::world_size].tolist()))
        assert sum(read.values()) <= 160 + 15  # the cuts between 16 stretches go through 15 shards at most


@pytest.mark.slow
def test_the_images_of_a_shard_are_equally_likely_at_every_place():
    counts = np.zeros((20, 20))
    for epoch in range(3000):
        for place, image in enumerate(ShardOrder([3, 5, 4, 1, 7], seed=9, epoch=epoch, lanes=2).at(range(20))):
            counts[place, image] += 1
    for begin, end in ((0, 3), (3, 8), (8, 12), (13, 20)):
        expected = counts[:, begin:end].mean(1, keepdims=True)
        assert (abs(counts[:, begin:end] - expected) <= 5 * np.sqrt(expected)).all()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_every_image_once_an_epoch_over_all_ranks_and_workers(shards: Path, world_size: int, workers: int):
    data = open_data(shards)
    for training, images in ((True, data.train), (False, data.val)):
        own = Counter(images.sample(i).content for i in range(len(images)))
        seen: Counter[bytes] = Counter()
        for rank in range(world_size):
            loader = make_loader(
                images,
                transform=as_tensor,
                batch_size=1,
                training=training,
                workers=workers,
                rank=rank,
                world_size=world_size,
            )
            loader.set_epoch(2)
            share = [pixels.numpy().tobytes() for batch, _ in loader for pixels in batch]
            assert len(share) == len(range(rank, len(images), world_size))
            seen.update(share)
        assert set(seen.values()) == {1}
        assert len(seen) == len(own) == len(images)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.tensor(np.asarray(image))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_resumed_where_it_was_left_with_the_same_bits(shards: Path, workers: int):
    def batches(start: dict[str, int] | None, workers: int) -> list:
        train = open_data(shards).train
        loader = make_loader(train, transform=HEAVY, batch_size=3, training=True, workers=workers, seed=2, epoch=4)
        if start:
            loader.load_state_dict(start)
        return list(loader)

    whole = batches(None, 0)
    assert same(batches(None, workers), whole)
    assert same(batches({"epoch": 4, "start": 9}, workers), whole[3:])


def test_another_number_of_ranks_continues_an_epoch(shards: Path):
    train = open_data(shards).train
    order = list(train.shuffled(range(24), seed=7, epoch=1))
    before = [list(train.shuffled(range(rank, 24, 4)[:3], seed=7, epoch=1)) for rank in range(4)]
    after = [list(train.shuffled(range(12, 24)[rank::2], seed=7, epoch=1)) for rank in range(2)]
    assert sorted(i for share in before + after for i in share) == sorted(order) == list(range(24))


def test_a_copy_for_another_process_reads_the_same(shards: Path):
    train = open_data(shards).train
    copy = pickle.loads(pickle.dumps(train))
    assert [copy.sample(i) for i in range(24)] == [train.sample(i) for i in range(24)]


def test_no_more_than_some_shards_are_held_open(photo: Callable[..., Path], tmp_path: Path):
    for i in range(50):
        photo(tmp_path / "photos" / "a" / f"{i}.png", number=i, size=(5, 3))
    run(ShardsConfig(task=["make", str(tmp_path / "photos")], out=tmp_path / "shards", images_per_shard=1))
    train = open_data(tmp_path / "shards").train
    assert len(train.shards) == 40
    contents = [train.sample(i).content for i in range(40)]
    assert len(train._open) == 32
    assert [train.sample(i).content for i in range(40)] == contents


def test_an_image_that_cannot_be_read_is_named_with_its_shard(photo_folder: Path, tmp_path: Path):
    (photo_folder / "train" / "bee" / "4.png").write_bytes(b"no image")
    (photo_folder / "train" / "cat" / "5.png").write_bytes(b"")
    run(ShardsConfig(task=["make", str(photo_folder)], out=tmp_path / "shards", images_per_shard=7))
    data = open_data(tmp_path / "shards")
    loader = make_loader(data.train, transform=HEAVY, batch_size=24, training=True, max_bad_images=2)
    assert sum(len(labels) for _, labels in loader) == 22
    assert {Path(bad.path).name.partition("-")[2] for bad in loader.bad_images} == {"4.png", "5.png"}
    assert all("/train-00000" in bad.path for bad in loader.bad_images)
    strict = make_loader(data.train, transform=HEAVY, batch_size=24, training=True, max_bad_images=1)
    with pytest.raises(ValueError, match=r"could not read 2 image\(s\)"):
        list(strict)


def test_decoding_asks_for_whole_images_and_not_for_their_range(photo_folder: Path, tmp_path: Path):
    for path in sorted((photo_folder / "train").rglob("*.png")):
        values = np.random.default_rng(0).random((9, 7)).astype(np.float32)
        Image.fromarray(values).save(path.with_suffix(".tif"))
        path.unlink()
    run(ShardsConfig(task=["make", str(photo_folder)], out=tmp_path / "shards", decode=True))
    run(ShardsConfig(task=["check", str(tmp_path / "shards")], decode=True))
    assert len(open_data(tmp_path / "shards", intensity_range=(0, 1)).train) == 24


def test_shards_do_not_become_a_class(photo_folder: Path):
    with pytest.raises(ValueError, match="out"):
        make_shards(photo_folder, photo_folder / "shards")
    assert not (photo_folder / "shards").exists()
