"""The networks that `foveate explain` looks into: trained ones, and any that timm knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, resolve_model_data_config
from torch import Tensor, nn

from foveate import _checks
from foveate.commands.explain_images import slugs
from foveate.data import TransformConfig
from foveate.explain import AttentionRecord, Explanation, explain
from foveate.io import NetworkMeta, load_network
from foveate.models import shipped
from foveate.models.building import build_network, check_classifier
from foveate.models.inspection import attention_modules

__all__ = ["ExplainedNetwork", "load_networks"]


@dataclass(frozen=True, eq=False)
class ExplainedNetwork:
    """A network, and how images are prepared for it."""

    label: str
    slug: str
    """What its results are called."""
    source: str
    """Where its weights are from: a checkpoint, or words."""
    model: nn.Module
    meta: NetworkMeta

    @property
    def transform(self) -> TransformConfig:
        """How an image is prepared: that of its training's tests."""
        names = ("img_size", "mean", "std", "crop_pct", "interpolation")
        return TransformConfig().replace(**{name: getattr(self.meta, name) for name in names})

    def uses_attention(self, method: str) -> bool:
        """Tell whether ``method`` looks at its attention, rather than at Grad-CAM."""
        return method == "attention" or (method == "auto" and bool(attention_modules(self.model)))

    def check(self, method: str, layers: Sequence[str]) -> None:
        """Raise a `ValueError` unless it can be explained by ``method`` and has one of the ``layers`` asked for."""
        self._names(method, layers)
        if method == "attention" and not attention_modules(self.model):
            raise ValueError(f"method: {self.label} has no attention module; leave method=auto, or use gradcam")
        if self.uses_attention(method):
            return
        height, width = self.meta.img_size
        device = next(self.model.parameters()).device
        try:
            self.explain(torch.zeros(1, 3, height, width, device=device), method=method, layers=layers, query=None)
        except ValueError as error:
            raise ValueError(f"method: {self.label} cannot be explained: {error}") from error

    def _names(self, method: str, layers: Sequence[str]) -> list[str] | None:
        """Return those of the ``layers`` asked for that it has; None if none are named."""
        if not layers or list(layers) == ["all"]:
            return None
        names = [name for name, _ in self.model.named_modules() if name]
        if self.uses_attention(method):
            names = list(attention_modules(self.model))
        found = [name for name in layers if name in names]
        if not found:
            known = _checks.suggestion(layers[0], names) or f"; it has {', '.join(names[:20])}"
            raise ValueError(f"layers: {self.label} has no layer {' or '.join(map(repr, layers))}{known}")
        return found

    def explain(
        self, image: Tensor, *, method: str, layers: Sequence[str], query: tuple[int, int] | None
    ) -> tuple[Explanation, list[AttentionRecord]]:
        """Explain one image ``(1, C, H, W)``; return also the records of ``layers``, ready to be drawn.

        Where none are named these are the last at each resolution. Explicit attention is the same from everywhere: what
        the middle attends to says all, the sum over all positions nothing.
        """
        explanation = explain(self.model, image, method=method, names=self._names(method, layers))
        records = list(explanation.records)
        if not layers:
            records = list({tuple(record.map.shape): record for record in records}.values())
        middle = (image.shape[2] // 2, image.shape[3] // 2)
        drawn = []
        for record in records:
            asked = middle if query is None and record.radius is not None else query
            drawn.append(record if record.weights is None or asked is None else record.queried(asked))
        return explanation, drawn


def load_networks(
    checkpoints: Sequence[str],
    models: Sequence[str],
    *,
    model_args: Mapping[str, Any],
    num_classes: int,
    img_size: int | tuple[int, int] | None,
    pretrained: bool,
    seed: int,
    device: torch.device,
) -> list[ExplainedNetwork]:
    """Load the networks in ``checkpoints`` and build those in ``models``, on ``device``.

    Raises:
        ValueError: There is no such checkpoint or network, or a network is no classifier of colour images.
    """
    loaded = [(checkpoint, *load_network(checkpoint)) for checkpoint in checkpoints]
    source = "weights of timm" if pretrained else f"untrained, seed {seed}"
    for name in models:
        torch.manual_seed(seed)
        if pretrained and name in shipped() and not model_args and img_size is None:  # whose card says more than timm
            model, meta = load_network(name)
            loaded.append((source, model, dataclasses.replace(meta, model=name)))
            continue
        loaded.append((source, *_build(name, model_args, num_classes, img_size, pretrained)))
    names = [meta.model for _, _, meta in loaded]
    networks = []
    for (where, model, meta), slug in zip(loaded, slugs(names), strict=True):
        height, width = meta.img_size
        check_classifier(meta.model, model, num_classes=len(meta.classes), img_size=(height, width))
        label = meta.model if names.count(meta.model) == 1 else f"{meta.model} ({where})"
        networks.append(ExplainedNetwork(label, slug, where, model.to(device).eval(), meta))
    return networks


def _build(
    name: str,
    model_args: Mapping[str, Any],
    num_classes: int,
    img_size: int | tuple[int, int] | None,
    pretrained: bool,
) -> tuple[nn.Module, NetworkMeta]:
    """Build a network of timm's by name, prepared for the images that timm prepares for it."""
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None  # what is unknown, build_network refuses
    size = _checks.pair("img_size", img_size if img_size is not None else tuple(known.input_size[1:]) if known else 224)
    model, kwargs = build_network(
        name, num_classes=num_classes, img_size=size, pretrained=pretrained, model_args=model_args
    )
    suited = resolve_model_data_config(model)
    classes = [str(index) for index in range(num_classes)]
    if pretrained and num_classes == ImageNetInfo().num_classes():
        classes = [ImageNetInfo().index_to_description(index) for index in range(num_classes)]
    meta = NetworkMeta(
        model=name,
        kwargs=kwargs,
        classes=classes,
        img_size=size,
        mean=suited["mean"],
        std=suited["std"],
        crop_pct=suited["crop_pct"],
        interpolation=suited["interpolation"],
    )
    return model, meta
