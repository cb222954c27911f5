"""Networks and images for the tests of trained networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import foveate
from foveate.io import NetworkMeta, save_network
from foveate.models.building import build_network

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)


CLASSES = [f"class{number}" for number in range(7)]


def saved(file: Path, name: str = "cram_resnet_tiny", size: tuple[int, int] = (32, 48), classes: int = 7) -> Path:
    """Write a checkpoint of a network whose weights are random, all of them."""
    torch.manual_seed(0)
    network, kwargs = build_network(name, num_classes=classes, img_size=size)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    meta = NetworkMeta(
        model=name,
        kwargs=kwargs,
        classes=CLASSES[:classes],
        img_size=size,
        mean=MEAN,
        std=STD,
        crop_pct=1.0,
        interpolation="bilinear",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    save_network(file, network, meta)
    return file


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def by_hand(paths: list[Path], size: tuple[int, int] = (32, 48)) -> Tensor:
    """Prepare images that already have the size of the input: the library's resize and crop are then no change."""
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(np.float32) / 255
    assert pixels.shape[1:3] == size
    normalised = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normalised).permute(0, 3, 1, 2)


def saved_again(trained: foveate.TrainedNetwork, folder: Path) -> Path:
    """Save a network as a folder, and return that."""
    trained.save(folder)
    return folder
