"""Detection and segmentation by several processes that have unequally many images, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.training.processes import PATIENCE, ended, together

import foveate

pytestmark = pytest.mark.slow

TASKS: dict[str, dict[str, Any]] = {
    "detection": {"detector": "retinanet", "head_args": {"channels": 16, "detections_per_img": 5}},
    "segmentation": {"head_args": {"decoder_channels": [16, 8, 8]}},
}
DIGITS = {"size": 16, "clutter": 1, "length": 16, "val_length": 3, "test_length": 1}


def train(task: str, folder: str) -> None:
    foveate.train(
        "conv_resnet_tiny",
        "digits",
        task=task,
        data_options=DIGITS,
        epochs=1,
        batch_size=4,
        lr=0.02,
        device="cpu",
        verbose=False,
        logger=[],
        out=folder,
        **TASKS[task],
    )


@pytest.mark.parametrize(("task", "metric"), [("detection", "map"), ("segmentation", "mean_iou")])
def test_figures_are_those_of_all_images(task: str, metric: str, tmp_path: Path) -> None:
    """Of the three validation images one process has two; of the one test image, the other has none."""
    assert ended(together(2, train, task, str(tmp_path / "run")), PATIENCE) == [0, 0]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["images"] == 1
    for split, found in (("val", result["history"][-1][f"val_{metric}"]), ("test", result["metrics"][metric])):
        expected = foveate.evaluate(tmp_path / "run", split=split)
        assert getattr(expected, metric).mean == pytest.approx(found, abs=1e-6)
