"""Metadata of the weights of a network: how to build and feed it, and the model card that identifies the file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from foveate import _checks
from foveate.io.appearance import unlike

__all__ = ["CARD_FORMAT", "ModelCard", "NetworkMeta", "card_of", "meta_of", "read_card", "sha256_of"]

CARD_FORMAT = 1
"""Format of new cards; raised when a reader of older ones would misunderstand them."""
DTYPES = ("float32", "float16", "float64", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class NetworkMeta:
    """Everything besides its weights that a network needs for use: saved with every checkpoint.

    Attributes:
        model: Name of the network in timm.
        kwargs: Further arguments of `timm.create_model`.
        classes: Names of the classes, in the order of the network's outputs.
        img_size: ``(height, width)`` of the training images.
        mean: Mean of each channel, subtracted from images in [0, 1].
        std: Standard deviation of each channel, by which they are then divided.
        crop_pct: The shorter side of a test image becomes ``img_size / crop_pct`` before its center is cropped.
        interpolation: Interpolation of the resize.
        fit: How a test image of other proportions is fitted: ``crop``, ``pad`` or ``squash``, see
            `foveate.data.TransformConfig`; networks for segmentation and detection see the whole image, padded
            unless it is ``squash``.
        appearance: Appearance of the training images, see `foveate.io.appearance.range_of`; None if unknown.
        intensity_range: ``(black, white)`` of 16-bit grayscale images, see `foveate.data.open_data`; None for the
            whole range.
        task: Name of the task that it was trained for; the classes are the names of its outputs.
        head: Decoder or detector on the network, see `foveate.models.dense`; empty for a classifier.
        head_args: Its keywords.
    """

    model: str
    kwargs: Mapping[str, Any]
    classes: Sequence[str]
    img_size: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    crop_pct: float
    interpolation: str
    fit: str = "crop"
    appearance: Mapping[str, Sequence[float]] | None = None
    intensity_range: Sequence[float] | None = None
    task: str = "classification"
    head: str = ""
    head_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _text("model", self.model)
        _text("task", self.task)
        _mapping("kwargs", self.kwargs)
        if not isinstance(self.head, str):
            raise ValueError(f"head must be a name or empty; got {self.head!r}")
        _mapping("head_args", self.head_args)
        for name in _sequence("classes", self.classes):
            _text("classes", name)
        _checks.pair("img_size", self.img_size)
        for value in _sequence("mean", self.mean):
            _checks.number("mean", value)
        for value in _sequence("std", self.std):
            _checks.number("std", value, above=0)
        _checks.number("crop_pct", self.crop_pct, above=0, maximum=2)
        _text("interpolation", self.interpolation)
        _checks.one_of("fit", self.fit, ("crop", "pad", "squash"))
        if self.intensity_range is not None:
            black, white = _sequence("intensity_range", self.intensity_range)
            _checks.number("intensity_range, white", white, above=_checks.number("intensity_range", black))
        for name, ends in _mapping("appearance", self.appearance or {}).items():
            if len(_sequence(f"appearance.{name}", ends)) != 2:
                raise ValueError(f"appearance.{name} must be the least and the most; got {ends!r}")
            for value in ends:
                _checks.number(f"appearance.{name}", value)

    def unlike(self, image: Tensor) -> list[str]:
        """Return in words in what a prepared image ``([1,] C, H, W)`` plainly differs from all training images."""
        if self.appearance is None:
            return []
        mean, std = (image.new_tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        return unlike(image.reshape(image.shape[-3:]) * std + mean, self.appearance)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Contents of ``NAME.json`` beside ``NAME.safetensors``: origin of the weights, and what identifies the file.

    Attributes:
        name: Name of the weights.
        network: How to build the network, and how to prepare its images.
        parameters: Number of the network's parameters.
        dtype: Dtype of the stored parameters; running statistics keep theirs.
        sha256: SHA-256 of the file of weights, in hexadecimal digits.
        license: License of the weights as an SPDX identifier, if known.
        data: Training data: ``name``, ``options``, ``seed``, and the number of images of each split in ``sizes``;
            empty if unknown.
        recipe: Settings of the training; empty if unknown.
        test: Result: ``split``, ``images``, and the figures of the task (``top1``, ``top5``, ``loss``; ``mean_iou``,
            ``pixel_accuracy``, ``loss``; ``map``, ``map50``, ``detections``) of the weights before any rounding to half
            precision; empty if unknown.
        versions: Versions of the software that trained it, or else wrote it.
        backbone: Where the file holds only what differs from other weights, ``name`` and ``sha256`` of those; empty if
            it holds all.
        format: `CARD_FORMAT`.
    """

    name: str
    network: NetworkMeta
    parameters: int
    dtype: str
    sha256: str
    license: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    backbone: Mapping[str, str] = field(default_factory=dict)
    format: int = CARD_FORMAT

    def __post_init__(self) -> None:
        if self.format != CARD_FORMAT:
            raise ValueError(f"format must be {CARD_FORMAT}, the only one that this version reads; got {self.format!r}")
        _text("name", self.name)
        _checks.integer("parameters", self.parameters, minimum=0)
        _checks.one_of("dtype", self.dtype, DTYPES)
        if not isinstance(self.sha256, str) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits; got {self.sha256!r}")
        if self.license is not None:
            _text("license", self.license)
        for name in ("data", "recipe", "test", "versions", "backbone"):
            _mapping(name, getattr(self, name))

    def fields(self) -> dict[str, Any]:
        """Return what is written to the file: without ``backbone``, unknown to older versions, where there is none."""
        written = dataclasses.asdict(self)
        return written if self.backbone else {name: value for name, value in written.items() if name != "backbone"}

    def check(self, path: Path, **found: Any) -> None:
        """Raise a `ValueError` that names the first field that differs from ``found``, the weights in ``path``."""
        for name, value in found.items():
            claimed = getattr(self, name)
            if name == "network":
                name, claimed, value = _first_difference(claimed, value)
            if claimed != value:
                raise ValueError(
                    f"{card_of(path)} does not belong to {path.name}: its {name} is {claimed!r}, that of the weights "
                    f"{value!r}. One of the two files was changed or mixed up; get both anew"
                )


def meta_of(fields: Mapping[str, Any]) -> NetworkMeta:
    """Return the `NetworkMeta` of fields that were read; a `ValueError` names those that this version does not know."""
    known = {field.name for field in dataclasses.fields(NetworkMeta)}
    unknown = sorted(str(name) for name in {**fields}.keys() - known)
    if unknown:
        raise ValueError(f"it has {', '.join(map(repr, unknown))}, written by a newer version perhaps; update foveate")
    return NetworkMeta(**fields)


def card_of(path: Path) -> Path:
    """Return the path of the card of a file of weights: ``NAME.json`` beside ``NAME.safetensors``."""
    return path.with_suffix(".json")


def read_card(path: Path) -> ModelCard:
    """Read a model card; a `ValueError` names the file and the key of one that is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "licence" in content:  # as version 0.1 wrote it
            content["license"] = content.pop("licence")
        return ModelCard(**{**content, "network": meta_of(_mapping("network", content["network"]))})
    except KeyError as error:
        raise ValueError(f"{path} is not a model card: it has no {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a model card, or is damaged: {error}") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_difference(one: NetworkMeta, other: NetworkMeta) -> tuple[str, Any, Any]:
    """Return the name of a field that differs, and its two values; equal ones if there is no difference."""
    # as in JSON, without tuples
    first, second = (json.loads(json.dumps(dataclasses.asdict(meta))) for meta in (one, other))
    name = next((name for name in first if first[name] != second[name]), "model")
    return f"network.{name}", first[name], second[name]


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be text; got {value!r}")


def _sequence(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{name} must be a list with something in it; got {value!r}")
    return value


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be keys with values; got {value!r}")
    return value
