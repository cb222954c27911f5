"""Batches of a user's own loaders that are not quite those that are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import foveate
from foveate.data import from_loaders

SETTINGS: dict[str, Any] = {"epochs": 1, "lr": 0.01, "device": "cpu", "verbose": False, "logger": []}
GIVEN: dict[str, Any] = {"classes": ["a", "b", "c"], "mean": (0.5,) * 3, "std": (0.5,) * 3}
LABELS = torch.arange(8) % 3


def loader(images: torch.Tensor, labels: torch.Tensor = LABELS) -> DataLoader[Any]:
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def images(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(8, *size, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_images_in_double_precision_are_those_in_single(tmp_path: Path) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):
        data = from_loaders(*(loader(images(3, 16, 16, dtype=dtype)) for _ in range(2)), **GIVEN)
        found.append(foveate.train("test_resnet", data, out=str(tmp_path / str(dtype)), **SETTINGS))
    assert found[0].metrics == found[1].metrics


@pytest.mark.parametrize(
    "train",
    [
        loader(images(3, 16, 16), torch.nn.functional.one_hot(LABELS, 3).float()),
        loader(images(3, 16, 16), LABELS.float()),
        loader(images(16, 16)),
        loader(images(3, 16, 16, dtype=torch.uint8)),
    ],
    ids=["mixed", "float labels", "no channels", "bytes"],
)
def test_batches_of_another_form_than_those_of_validation_are_named(train: DataLoader[Any], tmp_path: Path) -> None:
    data = from_loaders(train, loader(images(3, 16, 16)), **GIVEN)
    with pytest.raises(ValueError, match=r"data: (labels|images) must be"):
        foveate.train("test_resnet", data, out=str(tmp_path / "x"), **SETTINGS)
