"""Training, evaluating and comparing from Python: loaders, augmentation, loggers and callbacks of a user's own."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image, ImageOps
from tests.stopping import StopAt
from tests.training.short import DIGITS, SETTINGS, TINY, weights
from torch.utils.data import DataLoader, TensorDataset

import foveate
from foveate.data import from_loaders, open_data
from foveate.training import TrainConfig

MEAN = STD = (0.5, 0.5, 0.5)


class Noisy(TensorDataset):
    """Images that are augmented by all three generators."""

    classes = tuple("0123456789")

    def __getitem__(self, index: Any) -> Any:
        image, label = super().__getitem__(index)
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return image + 0.01 * noise, label


class Plain(TensorDataset):
    classes = Noisy.classes


def batches(length: int, *, training: bool = False, workers: int = 0, generator: bool = False) -> DataLoader[Any]:
    rng = torch.Generator().manual_seed(length)
    images, labels = torch.randn(length, 3, 16, 16, generator=rng), torch.randint(10, (length,), generator=rng)
    given = torch.Generator().manual_seed(1) if generator else None
    data = (Noisy if training else Plain)(images, labels)
    return DataLoader(data, 8, shuffle=training, num_workers=workers, generator=given)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "generator"), [(0, False), (0, True), (2, False)])
def test_a_training_on_loaders_resumes_to_the_last_bit(tmp_path: Path, workers: int, generator: bool) -> None:
    def run(name: str, **how: Any) -> foveate.training.TrainResult:
        random.seed(len(name))
        data = from_loaders(
            batches(48, training=True, workers=workers, generator=generator), batches(20), mean=MEAN, std=STD
        )
        return foveate.train("test_resnet", data, out=str(tmp_path / name), **SETTINGS, **how)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("part", callbacks=[StopAt(9)], checkpoint_updates=1)
    part = run("part", checkpoint_updates=1, resume=True)
    first, second = weights(whole.folder), weights(part.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    timeless = [[{**row, "seconds": 0} for row in result.history] for result in (whole, part)]
    assert timeless[0] == timeless[1]
    assert whole.content["split"] == "val"
    loaded = foveate.load(whole.folder)
    assert (loaded.classes, loaded.meta.mean) == (list("0123456789"), list(MEAN))
    assert loaded.evaluate(batches(20)).correct == whole.content["correct"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"train": [1, 2]}, "val"),
        ({"val": iter([])}, "val"),
        ({"val": DataLoader(TensorDataset(torch.zeros(8, 3, 4, 4)), 4)}, "val"),
        ({"val": DataLoader(TensorDataset(torch.zeros(8, 1, 4, 4), torch.zeros(8)), 4)}, "val"),
        ({"train": DataLoader(TensorDataset(torch.zeros(8, 3, 4, 4), torch.zeros(8)), 4)}, "classes"),
        ({"std": (0.5, 0.5)}, "std"),
        (
            {"train": DataLoader(Plain(torch.zeros(7, 3, 4, 4), torch.zeros(7)), 8, drop_last=True)},
            "train has no batch",
        ),
    ],
)
def test_loaders_that_do_not_do_are_refused(changes: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"train": batches(16), "val": batches(8), "mean": MEAN, "std": STD, **changes}
    if "train" in changes and field == "val":
        given["val"] = 3
    with pytest.raises(ValueError, match=field):
        from_loaders(given.pop("train"), given.pop("val"), **given)


@pytest.mark.slow
def test_augmentation_by_a_callable(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def mirrored(image: Image.Image) -> Image.Image:
        seen.append(image.size)
        return ImageOps.mirror(image) if random.random() < 0.5 else image

    how: dict[str, Any] = {"data_options": TINY, **SETTINGS}
    whole = foveate.train("test_resnet", augment=mirrored, out=str(tmp_path / "whole"), **how)
    assert seen == [(16, 16)] * 96
    options: dict[str, Any] = {"augment": mirrored, "out": str(tmp_path / "part"), "checkpoint_updates": 1, **how}
    with pytest.raises(KeyboardInterrupt):
        foveate.train("test_resnet", callbacks=[StopAt(9)], **options)
    with pytest.raises(ValueError, match="augment"):
        foveate.train("test_resnet", resume=True, **{**options, "augment": ImageOps.flip})
    part = foveate.train("test_resnet", resume=True, **options)
    first, second = weights(whole.folder), weights(part.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain = foveate.train("test_resnet", out=str(tmp_path / "plain"), **how)
    assert not all(torch.equal(first[name], other) for name, other in weights(plain.folder).items())


@pytest.mark.parametrize("returned", [3, torch.zeros(3, 8, 8), torch.zeros(3, 16, 16, dtype=torch.uint8)])
def test_an_augmentation_must_return_an_image(tmp_path: Path, returned: Any) -> None:
    with pytest.raises(ValueError, match="augment"):
        foveate.train("test_resnet", augment=lambda _: returned, out=str(tmp_path / "x"), data_options=TINY, **SETTINGS)


def test_an_augmentation_that_comes_with_the_data_is_told_apart(tmp_path: Path) -> None:
    data = open_data("digits", options=TINY)
    augmented = dataclasses.replace(data, augment=ImageOps.mirror)
    how: dict[str, Any] = {"out": str(tmp_path / "run"), **SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        foveate.train("test_resnet", augmented, callbacks=StopAt(1), **how)
    with pytest.raises(ValueError, match=r"augment: PIL\.ImageOps\.mirror then, none now"):
        foveate.train("test_resnet", data, resume=True, **how)
    foveate.train("test_resnet", data, resume=True, augment=ImageOps.mirror, **how)


def test_numbers_of_numpy_are_settings_in_dictionaries_too(tmp_path: Path) -> None:
    options = {name: np.int64(value) for name, value in TINY.items()}
    foveate.train("test_resnet", out=str(tmp_path / "run"), data_options=options, **SETTINGS)


def test_what_a_scheduler_says_of_its_tasks_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "mine", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    foveate.train("test_resnet", out=str(tmp_path / "run"), data_options=TINY, **SETTINGS)


def test_bad_settings_are_named_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"epoch": 3}, "epoch.*epochs"),
        ({"logger": ["tensorbord"]}, "logger.*tensorboard"),
        ({"logger": [3]}, "logger"),
        ({"data": 3}, "data"),
        ({"data": [batches(8)]}, "from_loaders"),
        ({"augment": 3}, "augment"),
        ({"lr": -1}, "lr"),
    ]
    for changes, message in cases:
        with pytest.raises(ValueError, match=message):
            foveate.train("test_resnet", **{"data_options": TINY, **SETTINGS, **changes})
    with pytest.raises(ValueError, match="models"):
        foveate.compare("test_resnet")
    with pytest.raises(ValueError, match="data"):
        foveate.compare(["test_resnet"], 3)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_augmentation_that_another_setting_switches_off(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"scale": (0.5, 1.0)}, "scale"),  # small images are padded and cropped
        ({"auto_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.8}, "color_jitter"),
    ]
    for changes, name in cases:
        with pytest.raises(ValueError, match=f"^{name} has no effect"):
            foveate.train("test_resnet", data_options=TINY, out=str(tmp_path / "x"), **SETTINGS, **changes)
    config = TrainConfig(model="test_resnet", data_options=TINY, auto_augment="3a", color_jitter=0.8)
    assert config.open().transform.color_jitter == 0.8


@pytest.mark.slow
def test_one_callback_and_one_logger_need_no_list(tmp_path: Path) -> None:
    seen = []

    class Callback:
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            seen.append(trainer.current_epoch)

    folder = tmp_path / "csv"
    foveate.train(
        "test_resnet", DIGITS, callbacks=Callback(), logger=CSVLogger(folder), out=str(tmp_path / "run"), **SETTINGS
    )
    assert seen == [0, 1]
    assert list(folder.rglob("metrics.csv"))


@pytest.mark.parametrize(("most", "message"), [(1.5, "3×48×48"), (2.0, r"img_scale.*3×33×33")])
def test_sizes_that_a_network_does_not_take_are_known_before(most: float, message: str, tmp_path: Path) -> None:
    """Of patches of 16 pixels: at 1.5 times 32 it takes none, at twice none between."""
    how = {**SETTINGS, "model_args": {"img_size": 32, "dynamic_img_size": most == 2}, "img_scale": (1.0, most)}
    with pytest.raises(ValueError, match=message):
        foveate.train("vit_tiny_patch16_224", data_options={**TINY, "size": 32}, out=str(tmp_path / "x"), **how)
    assert not (tmp_path / "x").exists()


def test_a_module_is_no_name() -> None:
    network = timm.create_model("test_resnet")
    for call in (foveate.train, foveate.load, foveate.evaluate):
        with pytest.raises(ValueError, match=r"register_model"):
            call(network)
    with pytest.raises(ValueError, match=r"register_model"):
        foveate.compare(["test_resnet", network])


@pytest.mark.slow
def test_train_evaluate_and_compare_agree(tmp_path: Path) -> None:
    how: dict[str, Any] = {"threads": 1, **SETTINGS}
    result = foveate.train("test_resnet", DIGITS, out=str(tmp_path / "run"), **how)
    again = foveate.evaluate(result.folder, DIGITS)
    assert (again.top1.mean, again.loss) == pytest.approx((result.metrics["top1"], result.metrics["loss"]), rel=1e-5)
    assert again.correct == result.content["correct"]
    table = foveate.compare(["test_resnet"], DIGITS, seeds=1, out=str(tmp_path / "compared"), **how)
    assert table["networks"][0]["top1"]["mean"] == pytest.approx(result.metrics["top1"])
    settings = foveate.TrainConfig(model="test_resnet", epochs=9, seed=1, device="cpu", batch_size=8, threads=1)
    changed = foveate.train(settings, DIGITS, epochs=2, seed=0, out=str(tmp_path / "changed"), verbose=False)
    assert changed.content["correct"] == result.content["correct"]
