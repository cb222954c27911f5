"""Networks that are explained, as files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from foveate.io import NetworkMeta, save_network
from foveate.models.building import build_network

__all__ = ["CLASSES", "save"]

CLASSES = ["cat", "dog", "person", "tree"]


def save(folder: Path, name: str, img_size: tuple[int, int] = (48, 48), crop_pct: float = 0.875) -> Path:
    """Write the checkpoint of a network whose weights are random, its rectangles and gates as well."""
    torch.manual_seed(0)
    model, kwargs = build_network(name, num_classes=len(CLASSES), img_size=img_size)
    for holder in getattr(model, "attention", {}).values():
        for parameter in holder.parameters():
            nn.init.normal_(parameter, std=0.3)
    meta = NetworkMeta(
        model=name,
        kwargs=kwargs,
        classes=CLASSES,
        img_size=img_size,
        mean=(0.4, 0.5, 0.6),
        std=(0.3, 0.2, 0.25),
        crop_pct=crop_pct,
        interpolation="bicubic",
    )
    folder.mkdir(parents=True)
    save_network(folder / "model.safetensors", model, meta)
    return folder
