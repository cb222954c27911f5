"""A small network, what it is trained on, and a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate.data import ImageLoader, make_loader, open_data
from foveate.tasks import Classification
from foveate.training import Recipe, TrainingModule, fit, make_loggers

__all__ = ["CPU", "DATA", "TEN_CLASSES", "loaders", "small_net", "train"]

CPU = torch.device("cpu")
TEN_CLASSES = list(map(str, range(10)))
DATA = open_data("digits", img_size=16, options={"clutter": 1, "length": 44, "val_length": 20, "test_length": 23})


def loaders(batch_size: int = 8) -> tuple[ImageLoader, ImageLoader]:
    shared: dict[str, Any] = {"transform": DATA.transform, "batch_size": batch_size, "seed": 3}
    return make_loader(DATA.train, training=True, **shared), make_loader(DATA.val, training=False, **shared)


def small_net(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(6 * 7 * 7, 10),
    )


def train(
    model: nn.Module, recipe: Recipe, out: Path, *, resume: bool = False, mixing: Any = None, **often: Any
) -> tuple[TrainingModule, Any]:
    out.mkdir(exist_ok=True)
    module = TrainingModule(
        model, recipe, Classification(TEN_CLASSES, label_smoothing=recipe.label_smoothing, mixing=mixing), seed=3
    )
    loggers = make_loggers(["csv", "tensorboard"], out, {})
    batches = loaders(recipe.batch_size)
    return module, fit(module, *batches, out=out, device=CPU, resume=resume, verbose=False, loggers=loggers, **often)
