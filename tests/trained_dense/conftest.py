"""One tiny run of each dense task for all tests of what is done with trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import foveate
from foveate.trained import TrainedDetector, TrainedSegmenter

DATA: dict[str, Any] = {"size": 16, "clutter": 1, "length": 32, "val_length": 5, "test_length": 13}
SETTINGS: dict[str, Any] = {
    "data_options": DATA,
    "epochs": 1,
    "batch_size": 16,
    "lr": 5e-3,
    "verbose": False,
    "logger": [],
}


def train(folder: Path, model: str, task: str, **settings: Any) -> Path:
    return foveate.train(model, "digits", task=task, out=str(folder), device="cpu", **SETTINGS, **settings).folder


@pytest.fixture(scope="session")
def segmentation_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmentation") / "run"
    return train(folder, "gsa_resnet_tiny", "segmentation", head_args={"decoder_channels": [16, 8, 8]})


@pytest.fixture(scope="session")
def detection_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Without a least score of its own: one that has learned for an epoch is sure of nothing.
    args = {"channels": 16, "detections_per_img": 7, "score_thresh": 0.0}
    return train(
        tmp_path_factory.mktemp("detection") / "run",
        "cram_resnet_tiny",
        "detection",
        detector="retinanet",
        head_args=args,
    )


@pytest.fixture(scope="session")
def segmenter(segmentation_run: Path) -> TrainedSegmenter:
    found = foveate.load(segmentation_run)
    assert isinstance(found, TrainedSegmenter)
    return found


@pytest.fixture(scope="session")
def detector(detection_run: Path) -> TrainedDetector:
    found = foveate.load(detection_run)
    assert isinstance(found, TrainedDetector)
    return found


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A wide image of noise, 37×23 pixels: in an input of 16×16 it is 16×10 pixels large."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (23, 37, 3), dtype=np.uint8))
