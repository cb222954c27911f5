"""Data loaders as users have them: shuffled, endless, with workers that stay, with odd labels."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stopping import StopAt
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
)

import foveate
from foveate.data import from_loaders, open_data
from foveate.data.dense import open_segmentation
from foveate.data.seeding import generators_kept, seed_generators
from foveate.data.worker_signals import _LIVE

SETTINGS: dict[str, Any] = {"epochs": 2, "lr": 0.01, "device": "cpu", "verbose": False, "logger": [], "sched": "none"}
GIVEN: dict[str, Any] = {"classes": ["a", "b", "c"], "mean": (0.5,) * 3, "std": (0.5,) * 3}
DIGITS: dict[str, Any] = {"size": 16, "clutter": 1, "length": 32, "val_length": 5, "test_length": 5}


def images(number: int) -> torch.Tensor:
    return torch.randn(number, 3, 16, 16, generator=torch.Generator().manual_seed(number))


def loader(number: int, labels: Any = None, **how: Any) -> DataLoader[Any]:
    labels = torch.arange(number) % 3 if labels is None else labels
    return DataLoader(TensorDataset(images(number), labels), batch_size=4, **how)


class Drawing(Dataset[Any]):
    """Images of which something is random."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return images(16)[index] + random.random() + torch.rand(()), index % 3


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield images(1)[0], 0


class Short(DataLoader[Any]):
    """Says that it has more batches than it gives."""

    def __len__(self) -> int:
        return super().__len__() + 2


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_is_compared_image_by_image_has_one_order(split: str) -> None:
    with pytest.raises(ValueError, match=split):
        from_loaders(loader(8), **{"val": loader(6), split: loader(6, shuffle=True)}, **GIVEN)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_loader_without_length_is_refused(split: str) -> None:
    given = {"train": loader(8), "val": loader(6), split: DataLoader(Endless(), batch_size=4)}
    with pytest.raises(ValueError, match=f"{split} must be a DataLoader of known length"):
        from_loaders(given.pop("train"), given.pop("val"), **given, **GIVEN)


def test_a_loader_that_ends_early_is_named(tmp_path: Path) -> None:
    train = Short(TensorDataset(images(8), torch.arange(8) % 3), batch_size=4)
    data = from_loaders(train, loader(6), **GIVEN)
    with pytest.raises(ValueError, match="2 batches, and its length is 4"):
        foveate.train("test_resnet", data, out=str(tmp_path / "x"), **SETTINGS)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_integers_are_taken(dtype: torch.dtype, tmp_path: Path) -> None:
    found = []
    for kind in (dtype, torch.int64):
        data = from_loaders(*(loader(n, (torch.arange(n) % 3).to(kind)) for n in (8, 6)), **GIVEN)
        found.append(foveate.train("test_resnet", data, out=str(tmp_path / str(kind)), **SETTINGS))
    assert found[0].metrics == found[1].metrics


@pytest.mark.parametrize(("split", "label"), [("train", 3), ("val", -1), ("test", 7)])
def test_a_label_that_is_no_class_is_named(split: str, label: int, tmp_path: Path) -> None:
    labels = torch.arange(8) % 3
    labels[5] = label
    data = from_loaders(**{"train": loader(8), "val": loader(8), split: loader(8, labels)}, **GIVEN)
    with pytest.raises(ValueError, match=f"label {label}"):
        foveate.train("test_resnet", data, out=str(tmp_path / "x"), **SETTINGS)


@pytest.mark.slow
def test_workers_that_stay_draw_the_same_after_an_interruption(tmp_path: Path) -> None:
    def run(name: str, **how: Any) -> Any:
        train = DataLoader(Drawing(), batch_size=4, shuffle=True, num_workers=1, persistent_workers=True)
        data = from_loaders(train, loader(6), **GIVEN)
        return foveate.train("test_resnet", data, out=str(tmp_path / name), checkpoint_updates=1, **SETTINGS, **how)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", callbacks=[StopAt(5)])
    parts = run("parts", resume=True)
    assert [row["train_loss"] for row in parts.history] == [row["train_loss"] for row in whole.history]


@pytest.mark.slow
def test_workers_leave_signals_to_the_training(tmp_path: Path) -> None:
    class Ending:
        """As a scheduler does, send the signal to all processes, first to the workers."""

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 1:
                workers = [worker for iterator in _LIVE for worker in iterator._workers]
                subprocess.run(["kill", "-TERM", *(str(worker.pid) for worker in workers)], check=True)
                time.sleep(0.2)
                assert workers
                assert all(worker.is_alive() for worker in workers)
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    def run(**how: Any) -> Any:
        begun = tmp_path / "begun"
        train = DataLoader(Drawing(), batch_size=4, num_workers=1, worker_init_fn=lambda _: begun.touch())
        data = from_loaders(train, loader(6), **GIVEN)
        return foveate.train("test_resnet", data, out=str(tmp_path / "run"), **SETTINGS, **how)

    with pytest.raises(KeyboardInterrupt) as raised:
        run(callbacks=[Ending()])
    assert raised.value.signum == signal.SIGTERM  # type: ignore[attr-defined]
    assert (tmp_path / "begun").exists()
    assert len(run(resume=True).history) == 2


@pytest.mark.slow
@pytest.mark.parametrize("stays", [False, True])
def test_a_process_whose_data_are_wrong_ends(tmp_path: Path, stays: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from concurrent.futures import ProcessPoolExecutor\n"  # which has multiprocessing end before PyTorch does
        "import torch, foveate\n"
        "from foveate.data import from_loaders\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "images = TensorDataset(torch.randn(96, 3, 16, 16), torch.arange(96) // 4)\n"
        f"train, val = (DataLoader(images, 4, num_workers=1, persistent_workers={stays}) for _ in range(2))\n"
        "data = from_loaders(train, val, classes=['a', 'b'], mean=[0] * 3, std=[1] * 3)\n"
        f"foveate.train('test_resnet', data, out={str(tmp_path / 'run')!r}, epochs=1, device='cpu')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ValueError: data: there is a label 2")


def test_an_order_in_batches_is_the_same_after_an_interruption(tmp_path: Path) -> None:
    epochs: list[int] = []

    class Noting(RandomSampler):
        def set_epoch(self, epoch: int) -> None:
            epochs.append(epoch)

    def run(name: str, **how: Any) -> Any:
        order = Noting(range(16), generator=torch.Generator().manual_seed(0))  # which would begin anew
        train = DataLoader(TensorDataset(images(16), torch.arange(16) % 3), batch_sampler=BatchSampler(order, 4, True))
        data = from_loaders(train, loader(6), **GIVEN)
        return foveate.train("test_resnet", data, out=str(tmp_path / name), checkpoint_updates=1, **SETTINGS, **how)

    whole = run("whole")
    assert {0, 1} <= set(epochs)
    with pytest.raises(KeyboardInterrupt):
        run("parts", callbacks=[StopAt(6)])  # in the second epoch
    parts = run("parts", resume=True)
    assert [row["train_loss"] for row in parts.history] == [row["train_loss"] for row in whole.history]


def test_mixing_leaves_the_batches_of_the_caller_alone(tmp_path: Path) -> None:
    batches = [(images(4), torch.tensor([0, 1, 2, 0])) for _ in range(2)]
    before = [one.clone() for one, _ in batches]
    data = from_loaders(DataLoader(batches, batch_size=None), loader(6), **GIVEN)  # type: ignore[arg-type]
    foveate.train("test_resnet", data, out=str(tmp_path / "x"), mixup=0.8, cutmix=1.0, **SETTINGS)
    assert all(torch.equal(one, kept) for (one, _), kept in zip(batches, before, strict=True))


def test_settings_that_would_mean_nothing_are_refused(tmp_path: Path) -> None:
    data = from_loaders(loader(8), loader(6), **GIVEN)
    with pytest.raises(ValueError, match="batch_size"):
        foveate.train("test_resnet", data, out=str(tmp_path / "x"), batch_size=512, **SETTINGS)
    for name, value in {"hflip": 0.5, "scale": (0.5, 1.0), "random_erasing": 0.1}.items():
        with pytest.raises(ValueError, match=f"{name} has no effect beside augment"):
            foveate.train(
                "test_resnet", augment=lambda image: image, out=str(tmp_path / "x"), **{name: value}, **SETTINGS
            )
    assert not list(tmp_path.iterdir())


def test_data_of_another_task_are_refused(tmp_path: Path) -> None:
    masks, labels = open_segmentation("digits", options=DIGITS), open_data("digits", options=DIGITS)
    for data, task in ((masks, "classification"), (labels, "segmentation"), (labels, "detection")):
        with pytest.raises(ValueError, match=f"task={task} cannot be learned"):
            foveate.train("conv_resnet_tiny", data, task=task, out=str(tmp_path / "x"), **SETTINGS)
        with pytest.raises(ValueError, match=f"task={task} cannot be learned"):
            foveate.compare(["conv_resnet_tiny"], data, task=task, out=str(tmp_path / "x"), **SETTINGS)
    ours = from_loaders(loader(8), loader(6), **GIVEN)
    dense = from_loaders(*(loader(4, torch.zeros(4, 16, 16, dtype=torch.long)) for _ in range(2)), **GIVEN)
    for data, task in ((ours, "segmentation"), (ours, "detection"), (dense, "classification"), (dense, "detection")):
        with pytest.raises(ValueError, match=f"task={task}"):
            foveate.train("conv_resnet_tiny", data, task=task, out=str(tmp_path / "x"), **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_sampler_that_shuffles_in_batches_is_seen(tmp_path: Path) -> None:
    order = BatchSampler(RandomSampler(range(6)), 4, drop_last=False)
    shuffled = DataLoader(TensorDataset(images(6), torch.arange(6) % 3), batch_sampler=order)
    with pytest.raises(ValueError, match="val"):
        from_loaders(loader(8), shuffled, **GIVEN)
    whole = from_loaders(shuffled, loader(6), **GIVEN)  # whose batches have no size that is known
    assert foveate.train("test_resnet", whole, out=str(tmp_path / "x"), batch_size=4, **SETTINGS).content["images"] == 6


def test_targets_that_are_no_labels_are_left_alone() -> None:
    centers = torch.tensor([[0.3, 14.5], [-2.0, 1.0], [0.5, 0.25], [7.0, 8.0]])
    data = from_loaders(loader(4, centers), loader(4, centers), **GIVEN)
    for batches in data.loaders(seed=0)[:2]:
        ((_, targets),) = batches
        assert torch.equal(targets, centers)


def test_the_order_of_an_epoch_is_that_of_its_seed() -> None:
    """Drawn from the seed, the epoch and the number of the batch, as it was when runs were begun that now go on."""
    train = DataLoader(TensorDataset(images(12), torch.arange(12)), batch_size=4, shuffle=True)
    data = from_loaders(train, loader(4), **{**GIVEN, "classes": list("abcdefghijkl")})
    with generators_kept():
        seed_generators(0, 0, 0)
        batches, expected = iter(train), []
        for number in (1, 2, 3):
            seed_generators(0, 0, number)
            expected.append(next(batches)[1].tolist())
    torch.manual_seed(99)
    assert [part.tolist() for _, part in data.loaders(seed=0).train] == expected == [[10, 8, 4, 7], *expected[1:]]


def test_a_loader_is_given_back_as_it_was() -> None:
    own = loader(8, num_workers=1, persistent_workers=True)
    before = {name for name in vars(own) if name != "_iterator"}
    batches = from_loaders(own, loader(6), **GIVEN).loaders(seed=0).train
    iter(batches)
    assert len(list(batches)) == 2
    assert {name for name in vars(own) if name != "_iterator"} == before
    assert own.worker_init_fn is None
    (worker,) = own._iterator._workers  # type: ignore[union-attr]
    del own, batches
    worker.join(10)  # nothing else holds it
    assert not worker.is_alive()


class Lazy(DataLoader[Any]):
    """Begins its workers when it is asked for the first batch."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


@pytest.mark.parametrize("stays", [False, True])
def test_workers_that_begin_late_ignore_signals(stays: bool) -> None:
    late = Lazy(TensorDataset(images(8), torch.arange(8) % 3), 4, num_workers=1, persistent_workers=stays)
    batches = from_loaders(late, loader(6), **GIVEN).loaders(seed=0).train
    for _ in range(2):
        before = set(_LIVE)
        running = iter(batches)
        next(running)
        ((worker,),) = [iterator._workers for iterator in set(_LIVE) - before]
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
        time.sleep(0.2)
        assert worker.is_alive()
        assert len(list(running)) == 1
