"""Figures of trained segmentation networks and detectors are those of their runs; data of other tasks are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import foveate
from foveate.commands.evaluate import EvaluateConfig, run
from foveate.data import open_data
from foveate.data.dense import open_detection, open_segmentation
from foveate.tasks import Segmentation
from foveate.trained import TrainedDetector, TrainedSegmenter

from .conftest import DATA

FIGURES = {"segmentation": ("mean_iou", "pixel_accuracy", "loss"), "detection": ("map", "map50", "detections")}


@pytest.mark.parametrize("task", FIGURES)
def test_the_command_gives_the_figures_of_the_run(
    task: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(f"{task}_run")
    expected = json.loads((folder / "result.json").read_text())
    file = tmp_path / "figures.json"
    found = run(EvaluateConfig(checkpoint=str(folder), data_options=DATA, batch_size=5, device="cpu", json=str(file)))
    assert json.loads(file.read_text()) == json.loads(json.dumps(found))
    score, *others = FIGURES[task]
    assert found[score]["mean"] == pytest.approx(expected["metrics"][score], abs=1e-6)
    assert found[score]["low"] <= found[score]["mean"] <= found[score]["high"]
    for name in others:
        assert found[name] == pytest.approx(expected["metrics"][name], rel=1e-4)
    assert list(found["per_class"].values()) == pytest.approx(expected["metrics"]["per_class"], abs=1e-6)
    assert list(found["per_class"]) == expected["network"]["classes"]
    assert found["images"] == len(found["scores"]) == 13
    printed = capsys.readouterr().out
    assert f"{found[score]['mean']:.2%}" in printed
    assert f"{found[score]['low']:.2%}" in printed
    assert run(EvaluateConfig(checkpoint=str(folder), data_options=DATA, split="val", device="cpu"))["images"] == 5


def test_batches_of_ones_own_are_taken(segmenter: TrainedSegmenter) -> None:
    data = open_segmentation("digits", options=DATA)
    images, masks = next(iter(data.loaders(batch_size=13).test))
    masks[:, :3] = 255
    batches = DataLoader(TensorDataset(images, masks), batch_size=4)
    found = segmenter.evaluate(batches)
    task = Segmentation(segmenter.classes)
    with torch.no_grad():
        expected = task.evaluate(*task.reduce(segmenter.network(images), masks))
    assert found.mean_iou.mean == pytest.approx(expected.mean_iou)
    assert sum(row[2] for row in found.scores[0]) == 13 * 16
    masks[2, 9, 9] = 11
    with pytest.raises(ValueError, match="11 classes"):
        segmenter.evaluate(batches)


def test_data_of_another_task_are_refused(segmenter: TrainedSegmenter, detector: TrainedDetector) -> None:
    objects = open_detection("digits", options=DATA)
    for trained, data in ((segmenter, open_data("digits", options=DATA)), (segmenter, objects)):
        with pytest.raises(ValueError, match="was trained for"):
            trained.evaluate(data)
    with pytest.raises(ValueError, match="was trained for"):
        foveate.load("cram_resnet_tiny.digits").evaluate(objects)  # of the same classes
    assert detector.evaluate(objects, split="val").images == 5
