"""Training on data that were opened already: what they fix, what is kept of them, and whether they are the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image, ImageOps
from safetensors.torch import load_file
from tests.made_sets import write_photo
from tests.stopping import StopAt

import foveate
from foveate.comparison import CompareConfig
from foveate.data import make_transform, open_data
from foveate.data.dense import open_detection, open_segmentation
from foveate.export import export_network
from foveate.training import TrainConfig
from foveate.training.build import _configuration as configuration_of
from foveate.training.build import fingerprint_of
from foveate.training.settings import DataConfig
from foveate.training.settings_file import to_yaml, with_data_of_run

TINY: dict[str, Any] = {"size": 16, "clutter": 1, "length": 48, "val_length": 20, "test_length": 21}
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "device": "cpu", "verbose": False}
DIGITS = open_data("digits", options=TINY)


@pytest.mark.parametrize(
    ("name", "value"), [("hflip", 0.5), ("img_size", 64), ("data_options", TINY), ("max_bad_images", 3)]
)
def test_settings_without_effect_on_opened_data_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} has no effect"):
        foveate.train("test_resnet", DIGITS, out=str(tmp_path / "x"), **{name: value}, **SETTINGS)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("name", "value"), [("hflip", 0.0), ("img_size", 64), ("random_erasing", 0.5)])
def test_settings_without_effect_are_found_in_a_configuration_too(name: str, value: Any, tmp_path: Path) -> None:
    config = TrainConfig(model="test_resnet", out=str(tmp_path / "x"), **{name: value})
    with pytest.raises(ValueError, match=f"{name} has no effect"):
        foveate.train(config, DIGITS, **SETTINGS)
    if name != "img_size":
        with pytest.raises(ValueError, match=f"{name} has no effect"):
            foveate.train(config, augment=ImageOps.mirror, data_options=TINY, **SETTINGS)
    assert not (tmp_path / "x").exists()


def test_several_jobs_cannot_share_opened_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^jobs has no effect"):
        foveate.compare(["test_resnet"], DIGITS, jobs=2, out=str(tmp_path / "x"), **SETTINGS)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_data_that_are_opened_otherwise_are_others(tmp_path: Path) -> None:
    how = {"out": str(tmp_path / "run"), **SETTINGS}
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        foveate.train("test_resnet", DIGITS, callbacks=StopAt(1), **how)
    blurred = dataclasses.replace(DIGITS, transform=DIGITS.transform.replace(hflip=0.25))
    for other, name in ((blurred, "hflip"), (open_data("digits", options={**TINY, "clutter": 0}), "clutter")):
        with pytest.raises(ValueError, match=rf"\n  {name}: .* then"):
            foveate.train("test_resnet", other, resume=True, **how)
    assert len(foveate.train("test_resnet", DIGITS, resume=True, **how).history) == 2


@pytest.mark.slow
def test_images_are_normalized_as_the_weights_know_them(tmp_path: Path) -> None:
    first = dataclasses.replace(DIGITS, transform=DIGITS.transform.replace(mean=(0.1, 0.2, 0.3), std=(0.4, 0.4, 0.4)))
    result = foveate.train("test_resnet", first, out=str(tmp_path / "one"), **SETTINGS)
    checkpoint = str(result.folder)
    again = foveate.train("test_resnet", DIGITS, checkpoint=checkpoint, out=str(tmp_path / "two"), **SETTINGS)
    assert tuple(foveate.load(again.folder).meta.mean) == (0.1, 0.2, 0.3)
    network = timm.create_model("cram_tf_efficientnet_lite0", num_classes=10)
    assert configuration_of(network, "cram_tf_efficientnet_lite0.in1k")["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_no_image_of_a_split_can_be_read(split: str, tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for number in range(4):
            path = write_photo(tmp_path / "set" / part / f"class{number % 2}" / f"{number}.png", number, (24, 24))
            if part == split:
                path.write_bytes(path.read_bytes()[:60])
    how = {"img_size": 24, "max_bad_images": 99, "out": str(tmp_path / "run"), **SETTINGS, "batch_size": 2}
    words = {"train": "training", "val": "validation", "test": "test"}
    with pytest.raises(ValueError, match=f"{words[split]} image"):
        foveate.train("test_resnet", tmp_path / "set", **how)


@pytest.mark.slow
def test_what_is_known_of_opened_data_is_kept(tmp_path: Path) -> None:
    """How images are fitted, and what is black and white in them: else a loaded network sees other images."""
    random = np.random.default_rng(0)
    for split, number in (("train", 9), ("val", 5)):
        for label in ("dark", "light"):
            for index in range(number):
                path = tmp_path / "set" / split / label / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(1000, 1600 if label == "dark" else 2200, (20, 44)).astype(np.uint16)
                Image.fromarray(pixels).save(path)
    data = open_data(tmp_path / "set", img_size=32, intensity_range=(1000, 2200))
    data = dataclasses.replace(data, transform=data.transform.replace(fit="pad", crop="none", crop_pct=1.0))
    result = foveate.train("test_resnet", data, out=str(tmp_path / "run"), **SETTINGS)
    trained = foveate.load(result.folder)
    assert tuple(trained.meta.intensity_range) == (1000, 2200)
    assert trained.transform.fit == "pad"
    path = tmp_path / "set" / "val" / "light" / "0.png"
    expected = make_transform(data.transform, training=False)(data.val[5][0])
    assert str(data.val.samples[5].path) == str(path)
    assert torch.equal(trained.prepare(path)[0], expected)
    found = foveate.evaluate(result.folder, tmp_path / "set", split="val")
    assert found.loss == pytest.approx(result.metrics["loss"], rel=1e-5)
    with pytest.raises(ValueError, match="padded"):
        export_network(result.folder, "hub", out=tmp_path / "hub")


@pytest.mark.slow
def test_a_run_is_evaluated_however_its_images_were_augmented(tmp_path: Path) -> None:
    how = {"data_options": TINY, "hflip": 0.25, "random_erasing": 0.5, "out": str(tmp_path / "run"), **SETTINGS}
    result = foveate.train("test_resnet", **how)
    assert foveate.evaluate(result.folder).top1.mean == pytest.approx(result.metrics["top1"])


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_digits_with_masks_and_boxes_are_told_apart(task: str, tmp_path: Path) -> None:
    opening = {"segmentation": open_segmentation, "detection": open_detection}[task]
    options = {"size": 16, "clutter": 1, "length": 6, "val_length": 2, "test_length": 2}
    ours, others = (opening("digits", seed=seed, options=options) for seed in (0, 3))
    state = fingerprint_of(ours).state()
    fingerprint_of(ours).check(state, tmp_path)
    with pytest.raises(ValueError, match="seed: 0 then, 3 now"):
        fingerprint_of(others).check(state, tmp_path)


@pytest.mark.slow
def test_weights_that_a_run_was_begun_from_may_be_gone_when_it_goes_on(tmp_path: Path) -> None:
    first = dataclasses.replace(DIGITS, transform=DIGITS.transform.replace(mean=(0.1, 0.2, 0.3), std=(0.4, 0.4, 0.4)))
    begun = foveate.train("test_resnet", first, out=str(tmp_path / "one"), **SETTINGS).folder / "model.safetensors"
    how = {"checkpoint": begun, **SETTINGS}
    whole = foveate.train("test_resnet", DIGITS, out=tmp_path / "whole", **how)
    with pytest.raises(KeyboardInterrupt):
        foveate.train("test_resnet", DIGITS, out=tmp_path / "cut", callbacks=StopAt(7), **how)
    begun.unlink()
    resumed = foveate.train("test_resnet", DIGITS, out=tmp_path / "cut", resume=True, **how)
    one, other = (load_file(run.folder / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert tuple(foveate.load(resumed.folder).meta.mean) == (0.1, 0.2, 0.3)


def test_paths_and_numbers_of_numpy_are_settings_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = TrainConfig(model="test_resnet", out="~/run", root=Path("~"), seed=np.int64(3), img_size=(np.int32(5), 7))
    assert (config.out, config.seed, config.img_size) == (str(tmp_path / "run"), 3, (5, 7))
    assert (type(config.seed), type(config.img_size[0]), config.root) == (int, int, str(tmp_path))
    compared = CompareConfig(models=["test_resnet"], out=Path("runs"), lr=np.float32(0.5))
    assert (compared.out, compared.lr, type(compared.lr)) == ("runs", 0.5, float)
    yaml.safe_load(to_yaml(config) + to_yaml(compared))


def test_a_folder_that_was_named_elsewhere_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "photos").mkdir(parents=True)
    (tmp_path / "other" / "photos").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("data: photos\ndata_seed: 7\n")

    def seed(data: str) -> int | None:
        return with_data_of_run(DataConfig(data=data, data_seed=None), str(tmp_path / "run")).data_seed

    monkeypatch.chdir(tmp_path)
    assert seed(str(tmp_path / "work" / "photos")) == 7
    assert seed("work/photos") == 7
    monkeypatch.chdir(tmp_path / "work")
    assert seed(str(tmp_path / "work" / "photos")) == seed("photos") == 7
    assert seed(str(tmp_path / "other" / "photos")) == 0
