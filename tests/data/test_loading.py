from __future__ import annotations

import logging
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.data import ClutteredDigits, EpochSampler, ImageLoader, TransformConfig, make_loader, open_data

HEAVY = TransformConfig(img_size=(24, 18), auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5, scale=(0.3, 1.0))


def batches(loader: ImageLoader, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader.set_epoch(epoch)
    return list(loader)


def same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def generators() -> tuple:
    numpy = np.random.get_state()[1].tobytes()  # noqa: NPY002
    return random.getstate(), numpy, torch.get_rng_state().numpy().tobytes()


def test_workers_do_not_change_a_bit(photo_folder: Path):
    train = open_data(photo_folder).train
    alone, helped = (
        make_loader(train, transform=HEAVY, batch_size=5, training=True, seed=11, workers=workers) for workers in (0, 2)
    )
    epochs = []
    for epoch in (0, 1):
        epochs.append(batches(alone, epoch))
        random.seed(epoch)  # what others draw in between has no influence
        np.random.seed(epoch)  # noqa: NPY002
        torch.manual_seed(epoch)
        assert same(epochs[-1], batches(helped, epoch))
        assert [images.shape for images, _ in epochs[-1]] == [(5, 3, 24, 18)] * 4
    assert not same(*epochs)
    assert same(epochs[0], batches(alone, 0))
    other = make_loader(train, transform=HEAVY, batch_size=5, training=True, seed=12)
    assert not same(epochs[0], batches(other, 0))


def test_an_image_is_augmented_the_same_wherever_it_falls(photo_folder: Path):
    data = open_data(photo_folder)
    seen: list[dict[bytes, int]] = []
    for batch_size, world_size in ((5, 1), (4, 2)):
        images = {}
        for rank in range(world_size):
            loader = make_loader(
                data.train, transform=HEAVY, batch_size=batch_size, training=True, rank=rank, world_size=world_size
            )
            images |= {x.numpy().tobytes(): int(y) for batch in batches(loader, 3) for x, y in zip(*batch, strict=True)}
        seen.append(images)
    assert len(seen[0]) == 20  # 4 of the 24 are left over
    assert seen[0].items() <= seen[1].items()


def test_random_generators_of_the_caller_are_left_alone(photo_folder: Path):
    data = open_data(photo_folder)
    for workers in (0, 2):
        before = generators()
        loader = make_loader(data.train, transform=HEAVY, batch_size=4, training=True, workers=workers)
        list(loader)
        assert generators() == before


def test_evaluation_gives_every_image_once_in_order(photo_folder: Path):
    data = open_data(photo_folder)
    loader = make_loader(data.val, transform=HEAVY, batch_size=4, training=False)
    first, second = batches(loader, 0), batches(loader, 1)
    assert same(first, second)
    assert torch.cat([labels for _, labels in first]).tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert [len(labels) for _, labels in first] == [4, 4, 1]


def test_training_sees_each_image_once_per_epoch_in_another_order():
    data = ClutteredDigits("val", length=40, clutter=0, size=16)
    own = {np.asarray(data[i][0]).tobytes() for i in range(40)}

    def as_bytes(image: object) -> torch.Tensor:
        return torch.tensor(np.asarray(image))

    loader = make_loader(data, transform=as_bytes, batch_size=8, training=True)
    orders = [[x.numpy().tobytes() for images, _ in batches(loader, epoch) for x in images] for epoch in (0, 1)]
    assert set(orders[0]) == set(orders[1]) == own
    assert orders[0] != orders[1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_the_data_set(training: bool, world_size: int):
    samplers = [EpochSampler(23, training=training, seed=4, rank=r, world_size=world_size) for r in range(world_size)]
    leftover = set()
    for epoch in range(8):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [[key.item for key in sampler] for sampler in samplers]
        assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
        together = sorted(index for share in shares for index in share)
        assert len(set(together)) == len(together)
        if training:
            assert {len(share) for share in shares} == {23 // world_size}
            leftover |= set(range(23)) - set(together)
        else:
            assert together == list(range(23))
            assert all(share == sorted(share) for share in shares)
    assert (len(leftover) > 23 % world_size) == (training and 23 % world_size > 0)  # others in each epoch


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_resumed_where_it_was_left(photo_folder: Path, workers: int):
    data = open_data(photo_folder)

    def loader() -> ImageLoader:
        return make_loader(data.train, transform=HEAVY, batch_size=3, training=True, workers=workers, seed=2)

    whole, next_epoch = batches(loader(), 4), batches(loader(), 5)
    stopped = loader()
    stopped.set_epoch(4)
    iterator = iter(stopped)
    taken = [next(iterator) for _ in range(3)]
    state = stopped.state_dict()
    assert state == {"epoch": 4, "start": 9, "bad_images": []}  # what workers have loaded ahead does not count
    resumed = loader()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    resumed.set_epoch(4)  # as a training loop does that numbers its epochs
    assert len(resumed) == 8
    assert same(taken + list(resumed), whole)
    assert same(batches(resumed, 5), next_epoch)
    assert same(batches(resumed, 4)[-5:], whole[-5:])


def test_a_finished_epoch_is_not_resumed(photo_folder: Path):
    data = open_data(photo_folder)
    loader = make_loader(data.train, transform=HEAVY, batch_size=8, training=True)
    batches(loader, 0)
    resumed = make_loader(data.train, transform=HEAVY, batch_size=8, training=True)
    resumed.load_state_dict(loader.state_dict())
    assert list(resumed) == []
    assert same(batches(resumed, 1), batches(loader, 1))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loop_goes_on_to_other_epochs(photo_folder: Path, workers: int):
    data = open_data(photo_folder)
    loader, numbered = (
        make_loader(data.train, transform=HEAVY, batch_size=8, training=True, workers=workers) for _ in range(2)
    )
    found = [list(loader) for _ in range(3)]
    for epoch, one in enumerate(found):
        assert same(one, batches(numbered, epoch))
    assert not same(found[0], found[1])
    next(iter(loader))  # one that is broken off is begun anew
    assert same(list(loader), batches(numbered, 3))
    plain = make_loader(data.val, transform=HEAVY, batch_size=8, training=False)
    assert same(list(plain), list(plain))


@pytest.mark.slow
def test_the_epoch_is_read_at_the_first_batch(photo_folder: Path):
    data = open_data(photo_folder)
    for workers in (0, 2):
        loader = make_loader(data.train, transform=HEAVY, batch_size=8, training=True, workers=workers)
        expected = batches(loader, 7)
        loader.set_epoch(0)
        iterator = iter(loader)
        loader.set_epoch(7)  # Lightning makes the iterator first
        assert same(list(iterator), expected)
    begun = make_loader(data.train, transform=HEAVY, batch_size=8, training=True, epoch=7)
    assert same(list(begun), expected)


@pytest.fixture
def damaged(photo_folder: Path) -> list[str]:
    """Damage three training images of `photo_folder` in three ways, and return their paths in order."""
    paths = [photo_folder / "train" / name for name in ("ant/3.png", "bee/1.png", "cat/7.png")]
    paths[0].write_bytes(b"")
    paths[1].write_text("a text file")
    paths[2].write_bytes(paths[2].read_bytes()[:-700])
    return list(map(str, paths))


@pytest.mark.parametrize("workers", [0, 2])
def test_tolerated_images_are_named_counted_and_left_out(
    photo_folder: Path, damaged: list[str], workers: int, caplog: pytest.LogCaptureFixture
):
    data = open_data(photo_folder, max_bad_images=3)
    loader = make_loader(
        data.train,
        transform=data.transform,
        batch_size=7,
        training=False,
        workers=workers,
        max_bad_images=data.max_bad_images,
    )
    for epoch in (0, 1):
        with caplog.at_level(logging.WARNING):
            loader.set_epoch(epoch)
            iterator = iter(loader)
            labels = torch.cat([next(iterator)[1] for _ in range(len(loader))])  # as Lightning does: no step beyond
        assert torch.bincount(labels).tolist() == [7, 7, 7]  # nothing was put in their places
        assert [bad.path for bad in loader.bad_images] == damaged  # the second epoch does not count them again
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == [
        "3 images could not be read and were left out:"
    ]
    for path, reason in zip(damaged, ("the file is empty", "not an image in a format", "truncated"), strict=True):
        assert path in caplog.text
        assert reason in caplog.text.lower()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", [0, 2])
def test_one_image_too_many_ends_the_epoch(photo_folder: Path, damaged: list[str], workers: int, limit: int):
    data = open_data(photo_folder, max_bad_images=limit)
    loader = make_loader(
        data.train, transform=data.transform, batch_size=4, training=False, workers=workers, max_bad_images=limit
    )
    with pytest.raises(
        ValueError, match=rf"could not read {limit + 1} image\(s\), and max_bad_images allows {limit}"
    ) as caught:
        list(loader)
    message = str(caught.value)
    assert all(path in message for path in damaged[: limit + 1])
    assert f"max_bad_images={limit + 1} or more" in message
    assert "Traceback" not in message


def test_a_batch_without_any_readable_image_is_passed_over(photo_folder: Path):
    for i in range(3):
        (photo_folder / "val" / "bee" / f"{i}.png").write_text("no image")
    data = open_data(photo_folder)
    loader = make_loader(data.val, transform=data.transform, batch_size=3, training=False, max_bad_images=9)
    assert [labels.tolist() for _, labels in loader] == [[0, 0, 0], [2, 2, 2]]
    assert len(loader.bad_images) == 3


def test_many_bad_images_are_listed_in_short(photo: Callable[..., Path], tmp_path: Path):
    for i in range(20):
        photo(tmp_path / "a" / f"{i}.png").write_text("no image")
    photo(tmp_path / "a" / "z.png")
    data = open_data(tmp_path)
    loader = make_loader(data.train, transform=data.transform, batch_size=17, training=False, max_bad_images=2)
    with pytest.raises(ValueError, match="and 6 more"):
        list(loader)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"batch_size": 25}, "batch_size=25 leaves no whole batch of the 24 training images; give at most 24"),
        ({"batch_size": 9, "world_size": 3}, "of the 8 training images of each of 3 processes; give at most 8"),
        ({"workers": -1}, "workers must be at least 0; got -1"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"epoch": -1}, "epoch must be at least 0; got -1"),
        ({"max_bad_images": -2}, "max_bad_images must be at least 0; got -2"),
        ({"world_size": 0}, "world_size must be at least 1; got 0"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size=2; got 2"),
    ],
)
def test_bad_arguments(photo_folder: Path, arguments: dict, message: str):
    data = open_data(photo_folder)
    with pytest.raises(ValueError, match=message):
        make_loader(data.train, **{"transform": HEAVY, "batch_size": 4, "training": True, **arguments})


def test_too_large_a_batch_of_several_processes_is_named_as_it_was_given(photo_folder: Path):
    with pytest.raises(ValueError, match=r"batch_size=27 .* 24 training images for 3 processes; give at most 24"):
        open_data(photo_folder).loaders(batch_size=27, rank=1, world_size=3)


@pytest.mark.slow
def test_a_process_that_keeps_a_loader_ends(tmp_path: Path) -> None:
    """Workers outlive signals; they must not outlive the process that made them, nor keep it from ending."""
    script = tmp_path / "script.py"
    script.write_text(
        "from foveate.data import make_loader, open_data\n"
        "data = open_data('digits', options={'size': 16, 'length': 16})\n"
        "loader = make_loader(data.train, transform=data.transform, batch_size=8, training=True, workers=2)\n"
        "print(len(list(loader)), *(worker.pid for worker in loader._iterator._workers))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    batches, *workers = map(int, done.stdout.split())
    assert (batches, len(workers)) == (2, 2)
    assert not any(Path("/proc", str(pid)).exists() for pid in workers)
