"""Comparisons whose images change meanwhile, or of which one cannot be read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.commands.pages import Page
from tests.data.dense.made import write_mask
from tests.made_sets import write_photo
from tests.stopping import StopAt

import foveate
from foveate.commands.report import ReportConfig, run
from foveate.comparison import costs
from foveate.comparison.config import folder_name
from foveate.data import open_data

SETTINGS: dict[str, Any] = {"epochs": 1, "batch_size": 8, "lr": 0.01, "device": "cpu", "verbose": False, "logger": []}


MARKS = {"right", "wrong"}


def write_set(folder: Path, *, train: int = 12, val: int = 6) -> Path:
    for split, number in (("train", train), ("val", val)):
        for index in range(number):
            write_photo(folder / split / f"class{index % 2}" / f"{index}.png", index, (24, 24))
    return folder


@pytest.mark.slow
def test_a_finished_run_is_not_reused_for_other_images(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    how = {"seeds": 1, "img_size": 24, "out": str(tmp_path / "runs"), **SETTINGS}
    foveate.compare(["test_resnet"], str(folder), **how)
    before = (tmp_path / "runs" / "test_resnet" / "seed-0" / "result.json").read_bytes()
    write_photo(folder / "train" / "class0" / "new.png", 99, (24, 24))
    with pytest.raises(ValueError, match=r"test_resnet.*\n.*train: 12 images then, 13 now"):
        foveate.compare(["test_resnet", "conv_resnet_tiny"], str(folder), **how)
    (folder / "train" / "class0" / "new.png").unlink()
    found = foveate.compare(["test_resnet", "conv_resnet_tiny"], str(folder), **how)
    assert [network["label"] for network in found["networks"]] == ["test_resnet", "conv_resnet_tiny"]
    assert (tmp_path / "runs" / "test_resnet" / "seed-0" / "result.json").read_bytes() == before


@pytest.mark.slow
def test_opened_data_of_another_length_are_seen_too(tmp_path: Path) -> None:
    digits = {"size": 16, "clutter": 1, "val_length": 5, "test_length": 5}
    how = {"seeds": 1, "out": str(tmp_path / "runs"), **SETTINGS}
    foveate.compare(["test_resnet"], open_data("digits", options={"length": 16, **digits}), **how)
    with pytest.raises(ValueError, match="16 images then, 24 now"):
        foveate.compare(["test_resnet", "test_vit"], open_data("digits", options={"length": 24, **digits}), **how)


@pytest.mark.slow
def test_the_table_is_made_though_an_image_cannot_be_read(tmp_path: Path) -> None:
    """Of the step whose memory is measured, the masks are one less than the images then."""
    for split, number in (("train", 8), ("val", 4)):
        for index in range(number):
            write_photo(tmp_path / "set" / "images" / split / f"{index}.png", index, (32, 32))
            mask = np.zeros((32, 32), np.uint8)
            mask[:16, index:] = 1
            write_mask(tmp_path / "set" / "masks" / split / f"{index}.png", mask)
    (tmp_path / "set" / "images" / "train" / "5.png").write_bytes(b"no image")
    table = foveate.compare(
        ["conv_resnet_tiny"],
        str(tmp_path / "set"),
        task="segmentation",
        head_args={"decoder_channels": [16, 8, 8]},
        max_bad_images=1,
        img_size=32,
        seeds=1,
        out=str(tmp_path / "runs"),
        **{**SETTINGS, "batch_size": 8},
    )
    assert table["networks"][0]["peak_memory"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["none", "padded", "augment"])
def test_an_image_too_long_to_be_resized_counts_as_a_bad_one(crop: str, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    for split in ("train", "val"):
        Image.new("RGB", (1, 20_000)).save(folder / split / "class1" / "thread.png")
    own = {"augment": lambda image: image} if crop == "augment" else {"crop": crop}
    how: dict[str, Any] = {"img_size": 224, **own, "out": str(tmp_path / "run"), **SETTINGS}
    with pytest.raises(ValueError, match=r"thread\.png.*too long and narrow"):
        foveate.train("test_resnet", str(folder), **{**how, "out": str(tmp_path / "other")})
    result = foveate.train("test_resnet", str(folder), max_bad_images=1, **how)
    assert len(result.content["bad_images"]) == 2
    assert result.content["images"] == 6


@pytest.mark.slow
def test_a_resumed_run_knows_which_images_could_not_be_read(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", train=16)
    for name in ("0.png", "2.png"):
        (folder / "train" / "class0" / name).write_bytes(b"no image")
    how = {"img_size": 24, "max_bad_images": 2, "checkpoint_updates": 1, **SETTINGS, "epochs": 2, "batch_size": 4}
    whole = foveate.train("test_resnet", str(folder), out=str(tmp_path / "whole"), **how)
    assert len(whole.content["bad_images"]) == 2
    with pytest.raises(KeyboardInterrupt):
        foveate.train("test_resnet", str(folder), out=str(tmp_path / "parts"), callbacks=[StopAt(7)], **how)
    parts = foveate.train("test_resnet", str(folder), out=str(tmp_path / "parts"), resume=True, **how)
    assert parts.content["bad_images"] == whole.content["bad_images"]


def test_a_long_specification_has_a_folder() -> None:
    long = f"test_resnet:block_args={'x' * 300}"
    name, other = folder_name(long), folder_name(f"{long}y")
    assert len(name) < 255
    assert name != other
    assert folder_name("test_resnet:drop_rate=0.1") == "test_resnet+drop_rate=0.1"


@pytest.mark.slow
def test_a_report_shows_opened_images_as_the_networks_saw_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_data(write_set(tmp_path / "set", val=8), img_size=24)
    data = dataclasses.replace(data, transform=data.transform.replace(crop_pct=0.5))
    foveate.compare(["test_resnet"], data, seeds=1, out=str(tmp_path / "runs"), **SETTINGS)
    page = Page(run(ReportConfig(runs=tmp_path / "runs", images=8)).read_text())
    marks = [mark for attributes in page.attributes("span") if (mark := attributes.get("class")) in MARKS]
    result = json.loads((tmp_path / "runs" / "test_resnet" / "seed-0" / "result.json").read_text())
    right = [mark == "right" for mark in marks[2:]]  # after the two of the legend
    assert right == [bool(correct) for correct in result["correct"]]


@pytest.mark.slow
def test_the_table_is_made_though_nothing_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise OSError("no longer there")

    monkeypatch.setattr(costs, "_loss_of", gone)
    data = str(write_set(tmp_path / "set"))
    table = foveate.compare(["test_resnet"], data, seeds=1, img_size=24, out=str(tmp_path / "runs"), **SETTINGS)
    (found,) = table["networks"]
    assert found["peak_memory"] is None
    assert found["images_per_second"]["median"] > 0
