"""The network and the task of a training, as its settings and its data have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg
from torch import nn

from foveate._imports import known_to_all
from foveate.data import ClutteredDigits, ImageData, LoaderData
from foveate.data.appearance import appearance_of
from foveate.data.dense import DenseData
from foveate.io import NetworkMeta, load_weights
from foveate.models.dense import build_with_head
from foveate.tasks import Task, find_task
from foveate.training.equivariance import check_gates
from foveate.training.fingerprint import DataFingerprint
from foveate.training.freezing import check_freeze
from foveate.training.settings import TrainConfig

__all__ = [
    "DRAWN",
    "Data",
    "build",
    "configured_task",
    "fingerprint_of",
    "is_known_to_all",
    "normalized",
    "with_appearance",
]

Data = ImageData | DenseData | LoaderData

DRAWN = ("clutter", "unit", "seed")
"""What cluttered digits of a size depend on."""


def configured_task(config: TrainConfig, data: Data, *, seed: int = 0) -> Task:
    """Return the task as ``config`` asks for it on ``data``."""
    task = find_task(config.task)
    task.check_data(data)
    return task.configured(config, data, seed=seed)


def build(config: TrainConfig, data: Data) -> tuple[nn.Module, NetworkMeta]:
    """Build the network for ``data`` with the weights that training starts from, as the seed has it.

    Raises:
        ValueError: There is no such network, it does not take the images or the keywords, its outputs are not those
            of the task, it has no gate to be made equivariant, no module that is to be frozen, or the weights to
            start from are those of another one.
    """
    torch.manual_seed(config.seed)
    task = configured_task(config, data)
    model, kwargs = build_with_head(
        config.model,
        task.head,
        num_classes=len(task.outputs),
        img_size=data.image_size,
        pretrained=config.pretrained,
        model_args=config.model_args,
        head_args=task.head_args,
    )
    for factor in sorted({1.0, *config.img_scale}):
        height, width = (max(1, round(side * factor)) for side in data.image_size)
        task.check_network(config.model, model, (height, width))
    low, high = ([max(1, round(side * factor)) for side in data.image_size] for factor in config.img_scale)
    if all(least < most for least, most in zip(low, high, strict=True)):  # any size between may be drawn, odd ones too
        try:
            task.check_network(config.model, model, (low[0] + 1, low[1] + 1))
        except ValueError as error:
            raise ValueError(f"img_scale draws any size between, which this network does not take: {error}") from error
    if config.equivariance:
        check_gates(model)
    check_freeze(model, config.freeze)
    known = _configuration(model, config.model) if config.pretrained else {}
    begun = None if config.checkpoint is None else load_weights(model, config.checkpoint)
    if begun is not None:
        known = {"mean": begun.mean, "std": begun.std}
    transform = data.transform
    if isinstance(data, LoaderData):  # which are normalized already
        known = {}
    meta = NetworkMeta(
        model=config.model,
        kwargs=kwargs,
        classes=task.outputs,
        img_size=data.image_size,
        mean=known.get("mean", transform.mean),  # as the weights know images
        std=known.get("std", transform.std),
        crop_pct=transform.crop_pct,
        interpolation=transform.interpolation,
        fit=transform.fit,
        intensity_range=config.intensity_range or getattr(data.train, "intensity_range", None),
        task=task.name,
        head=task.head,
        head_args=dict(task.head_args),
    )
    return model, meta


def _configuration(model: nn.Module, name: str) -> dict[str, Any]:
    """Return what timm knows of the weights of a network, or of the one that it is made around."""
    found = (getattr(module, "pretrained_cfg", None) for module in model.modules())
    configuration = next(filter(None, found), None) or timm.get_pretrained_cfg(name)
    if isinstance(configuration, PretrainedCfg):
        return configuration.to_dict()
    return dict(configuration or {})


def normalized(data: Data, meta: NetworkMeta) -> Data:
    """Return ``data`` with the mean and standard deviation of ``meta``; loaders have their own."""
    if isinstance(data, LoaderData):
        return data
    return dataclasses.replace(data, transform=data.transform.replace(mean=meta.mean, std=meta.std))


def with_appearance(meta: NetworkMeta, data: Data) -> NetworkMeta:
    """Return ``meta`` with what the training images look like."""
    return dataclasses.replace(meta, appearance=appearance_of(data))


def fingerprint_of(data: Data, augment: str = "", splits: Iterable[str] = ("train", "val", "test")) -> DataFingerprint:
    """Return what identifies the images of ``data``, or of some of its splits, when a run is resumed."""
    names = [name for name in splits if getattr(data, name) is not None]
    augment = augment or _name_of(getattr(data, "augment", None))
    return DataFingerprint(
        data.classes,
        {name: data.length(name) for name in names},
        {name: partial(data.identities, name) for name in names},
        augment=augment,
        prepared=_prepared(data),
    )


def is_known_to_all(model: str) -> bool:
    """Whether every process that is started from here has the network."""
    return known_to_all(timm.model_entrypoint(model).__module__) if timm.is_model(model) else True


def _name_of(augment: Any) -> str:
    """Return what a resumed run's augmentation is told apart by."""
    if augment is None:
        return ""
    named = augment if hasattr(augment, "__qualname__") else type(augment)
    return f"{named.__module__}.{named.__qualname__}"


def _prepared(data: Data) -> dict[str, Any]:
    """Return how images are made and prepared, but for the normalization, which is that of the weights."""
    if isinstance(data, LoaderData):
        return {}
    transform = dataclasses.asdict(data.transform)
    made = getattr(data.train, "digits", data.train)  # with masks or boxes, or without
    drawn = {name: getattr(made, name) for name in DRAWN} if isinstance(made, ClutteredDigits) else {}
    unused = {"mean", "std"} | (set() if data.transform.crop == "resized" else {"scale", "ratio"})
    return {name: value for name, value in transform.items() if name not in unused} | drawn
