"""Trainings that end soon, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from foveate.data import open_data
from foveate.io import load_network

TINY: dict[str, Any] = {"size": 16, "clutter": 1, "length": 48, "val_length": 20, "test_length": 21}
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "device": "cpu", "verbose": False}
DIGITS = open_data("digits", options=TINY)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder)[0].state_dict()
