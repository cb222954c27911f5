"""Trainings of segmentation and detection: interrupted, resumed, compared, on folders and on digits."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.dense.made import write_mask, write_masks, write_voc, xml
from tests.stopping import StopAt
from tests.training.interruptions import kill_trials

import foveate
from foveate.commands.report import ReportConfig
from foveate.commands.report import run as report
from foveate.data.dense import open_detection, open_segmentation
from foveate.io import load_network
from foveate.tasks import find_task

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "data": "digits",
    "data_options": {"size": 16, "clutter": 1, "length": 96, "val_length": 20, "test_length": 21},
    "epochs": 2,
    "batch_size": 16,
    "lr": 5e-3,
    "verbose": False,
    "logger": [],
}
SHORT = {**SETTINGS, "data_options": {**SETTINGS["data_options"], "length": 32}, "epochs": 1}
"""Two updates, where it does not matter what is learned."""
TASKS: dict[str, dict[str, Any]] = {
    "segmentation": {"head_args": {"decoder_channels": [16, 8, 8]}},
    "detection": {"detector": "retinanet", "head_args": {"channels": 16, "detections_per_img": 5}},
}


@pytest.mark.parametrize("task", TASKS)
def test_an_interrupted_training_goes_on_to_the_same_weights(task: str, tmp_path: Path) -> None:
    how = {"task": task, "checkpoint_updates": 1, **SETTINGS, **TASKS[task]}
    whole = foveate.train("cram_resnet_tiny", out=str(tmp_path / "whole"), **how)
    with pytest.raises(KeyboardInterrupt):
        foveate.train("cram_resnet_tiny", out=str(tmp_path / "parts"), callbacks=[StopAt(4)], **how)
    parts = foveate.train("cram_resnet_tiny", out=str(tmp_path / "parts"), resume=True, **how)
    (first, meta), (second, _) = load_network(whole.folder), load_network(parts.folder)
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert whole.content["scores"] == parts.content["scores"]
    assert whole.content["images"] == 21
    assert (meta.task, meta.head) == (task, "unet" if task == "segmentation" else "retinanet")
    assert whole.history[-1]["train_loss"] < 0.9 * whole.history[0]["train_loss"]
    metric = find_task(task).metric
    assert whole.metrics[metric] == pytest.approx(find_task(task)(meta.classes).score([whole.content["scores"]]).mean)


@pytest.mark.parametrize("task", TASKS)
def test_a_run_does_not_go_on_with_other_targets(task: str, tmp_path: Path) -> None:
    size = (40, 32)
    if task == "segmentation":
        root = write_masks(tmp_path / "set", {"train": 8, "val": 3}, size=size)
        target, changed = root / "train" / "masks" / "3.png", np.zeros(size[::-1])
    else:
        boxes = xml([("cat", (3, 4, 20, 17)), ("dog", (11, 5, 31, 29))], size)
        splits = {"train": {f"t{k}": boxes for k in range(8)}, "val": {"v": boxes}}
        root = write_voc(tmp_path / "set", splits, size)
        target = root / "Annotations" / "t3.xml"
    how = {**TASKS[task], "img_size": 32, "epochs": 2, "batch_size": 2, "verbose": False, "logger": [], "task": task}
    how |= {"data": str(root), "out": str(tmp_path / "run"), "checkpoint_updates": 1}
    with pytest.raises(KeyboardInterrupt):
        foveate.train("conv_resnet_tiny", callbacks=[StopAt(2)], **how)
    before = target.read_bytes()
    if task == "segmentation":
        write_mask(target, changed)
    else:
        target.write_text(xml([("cat", (3, 4, 20, 18)), ("dog", (11, 5, 31, 29))], size))  # by one pixel
    name = "train/images/3.jpg" if task == "segmentation" else "JPEGImages/t3.jpg"
    with pytest.raises(ValueError, match=f"other data(.|\n)*1 removed \\({name}(.|\n)*1 added \\({name}"):
        foveate.train("conv_resnet_tiny", resume=True, **how)
    target.write_bytes(before)
    assert len(foveate.train("conv_resnet_tiny", resume=True, **how).history) == 2


@pytest.mark.exhaustive
def test_killed_runs_of_segmentation_go_on_as_if_they_had_not_been(tmp_path: Path) -> None:
    outcome = kill_trials(1, 3, tmp_path / "trials", variants=("segmentation",))
    assert outcome.failures == []
    assert outcome.counts["bit-equal"] == 1


@pytest.mark.parametrize("task", TASKS)
def test_networks_are_compared(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = {**SHORT, **TASKS[task], "verbose": True}
    table = foveate.compare(
        ["conv_resnet_tiny", "expatt_resnet_tiny"], task=task, seeds=1, jobs=1, out=str(tmp_path / "c"), **how
    )
    metric = find_task(task).metric
    first, second = table["networks"]
    assert table["metric"] == metric
    assert first[metric]["low"] <= first[metric]["mean"] <= first[metric]["high"]
    assert second["difference"]["mean"] == pytest.approx(second[metric]["mean"] - first[metric]["mean"], abs=1e-9)
    assert first["flops"] > 0
    assert first["parameters"] > 0
    assert "conv_resnet_tiny" in capsys.readouterr().out
    page = report(ReportConfig(runs=tmp_path / "c", images=3)).read_text()
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:image/png;base64,([^"]+)" alt="What expatt_resnet_tiny found', page)
    ]
    assert len(pictures) == 3
    assert all(max(picture.size) == 144 and len(set(picture.convert("RGB").getdata())) > 2 for picture in pictures)


def test_a_folder_of_masks_is_learned(tmp_path: Path) -> None:
    """Left of a line is one class, right of it the other, and a stripe is void."""
    random = np.random.default_rng(0)
    for split, number in (("train", 24), ("val", 7)):
        for index in range(number):
            edge = int(random.integers(8, 25))
            mask = np.zeros((27, 33), np.uint8)
            mask[:, edge:] = 1
            pixels = np.where(mask[..., None] == 1, (200, 60, 60), (40, 90, 200)) + random.integers(
                -30, 30, (27, 33, 3)
            )
            mask[:3] = 2
            for folder, image in (("images", pixels.clip(0, 255).astype(np.uint8)), ("masks", mask)):
                path = tmp_path / "set" / split / folder / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    result = foveate.train(
        "conv_resnet_tiny",
        str(tmp_path / "set"),
        task="segmentation",
        out=str(tmp_path / "run"),
        img_size=32,
        epochs=8,
        batch_size=8,
        lr=5e-3,
        data_options={"void": 2, "classes": ["left", "right"]},
        head_args={"decoder_channels": [16, 8, 8]},
        verbose=False,
        logger=[],
    )
    assert result.metrics["mean_iou"] > 0.8
    pixels = np.asarray(result.content["scores"])[:, :, 2].sum(1)
    assert (pixels <= 32 * 32 * 27 / 33).all()
    content = json.loads((tmp_path / "run" / "result.json").read_text())
    assert content["network"]["classes"] == ["left", "right"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"task": "segmentation", "decoder": "unett"}, "decoder"),
        ({"task": "segmentation", "mixup": 0.2}, "mixup"),
        ({"task": "segmentation", "auto_augment": "rand-m9-mstd0.5-inc1"}, "auto_augment"),
        ({"task": "detection", "detector": "yolo"}, "detector"),
        ({"task": "detection", "equivariance": 1.0}, "equivariance"),
        ({"task": "detection", "head_args": {"nothing": 1}}, "nothing"),
        ({"dice": 1.0}, "dice"),
    ],
)
def test_bad_settings_leave_nothing(settings: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=field):
        foveate.train("cram_resnet_tiny", out=str(tmp_path / "run"), **{**SETTINGS, **settings})
    assert not (tmp_path / "run").exists()


def test_opened_data_are_taken(tmp_path: Path) -> None:
    for task, open_it in (("segmentation", open_segmentation), ("detection", open_detection)):
        data = open_it("digits", options=SHORT["data_options"])
        how = {**SHORT, **TASKS[task]}
        named = foveate.train("conv_resnet_tiny", task=task, out=str(tmp_path / f"{task}-named"), **how)
        del how["data"], how["data_options"]
        given = foveate.train("conv_resnet_tiny", data, task=task, out=str(tmp_path / task), **how)
        assert given.content["scores"] == named.content["scores"]
        assert given.history[0]["train_loss"] == named.history[0]["train_loss"]


@pytest.mark.parametrize("task", ["classification", *TASKS])
def test_batches_of_random_sizes_take_their_targets_along_and_are_resumed(task: str, tmp_path: Path) -> None:
    scale = (0.7, 4.0) if task == "detection" else (0.7, 1.9)  # whose images are padded to multiples of 32
    how = {"task": task, "checkpoint_updates": 1, "img_scale": scale, **SETTINGS, **TASKS.get(task, {})}
    sizes: list[tuple[int, ...]] = []

    class Seen:
        def on_train_start(self, trainer: Any, module: Any) -> None:
            first = next(one for one in module.model.modules() if isinstance(one, torch.nn.Conv2d))
            first.register_forward_hook(lambda _, inputs, output: sizes.append(tuple(inputs[0].shape)))

    whole = foveate.train("conv_resnet_tiny", out=str(tmp_path / "whole"), callbacks=[Seen()], **how)
    trained = {size for size in sizes if size[0] == 16}
    padded = {"segmentation": 8, "detection": 32}.get(task, 1)  # to multiples of
    assert len(trained) >= {1: 6, 8: 3, 32: 2}[padded]
    assert {height for _, _, height, _ in trained} <= set(range(11, 65))
    if task == "detection":  # how sizes are drawn when a run goes on does not know the task
        return
    with pytest.raises(KeyboardInterrupt):
        foveate.train("conv_resnet_tiny", out=str(tmp_path / "parts"), callbacks=[StopAt(3)], **how)
    parts = foveate.train("conv_resnet_tiny", out=str(tmp_path / "parts"), resume=True, **how)
    first, second = (load_network(one.folder)[0].state_dict() for one in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_masks_and_boxes_are_resized_with_their_images() -> None:
    image = torch.zeros(1, 3, 12, 20)
    image[:, :, 3:9, 5:15] = 1
    mask = (image[:, 0] > 0.5).long()
    size = (24, 60)
    images, masks = find_task("segmentation")(["no", "yes"]).resize(image, mask, size)
    assert torch.equal((images[:, 0] > 0.4).long(), masks)  # 2/3 · 3/4 in a corner inside, 1/3 beside an edge
    objects = [{"boxes": torch.tensor([[5.0, 3, 15, 9]]), "labels": torch.tensor([0]), "masks": mask.to(torch.uint8)}]
    images, moved = find_task("detection")(["thing"]).resize(image, objects, size)
    rows, columns = torch.nonzero(images[0, 0] > 0.4).unbind(1)
    corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert moved[0]["boxes"][0].tolist() == [float(value) for value in corners]
    assert torch.equal(moved[0]["masks"][0].long(), masks[0])
    assert objects[0]["boxes"][0, 0] == 5
