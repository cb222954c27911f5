"""Networks that note what they are trained on, and the comparisons of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from timm.models import register_model
from torch import Tensor, nn

from foveate.commands.compare import CompareConfig

__all__ = ["BEFORE_TRAINING_STEP", "DIGITS", "MODELS", "SEEN", "config", "watched_resnet", "watched_vit"]

DIGITS: dict[str, Any] = {"size": 16, "clutter": 1, "length": 40, "val_length": 20, "test_length": 31}
MODELS = ["test_resnet", "conv_resnet_tiny:drop_rate=0.4", "test_vit"]

SEEN: list[tuple[str, Tensor]] = []
"""What `watched_resnet` and `watched_vit` were trained on."""
BEFORE_TRAINING_STEP: list[Callable[[], None]] = []


def watched(name: str, **kwargs: Any) -> nn.Module:
    kwargs = {key: value for key, value in kwargs.items() if not key.startswith("pretrained") and key != "cache_dir"}
    model = timm.create_model(name, **kwargs)

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training:
            for hook in BEFORE_TRAINING_STEP:
                hook()
            SEEN.append((name, inputs[0].clone()))

    model.register_forward_pre_hook(look)
    return model


@register_model
def watched_resnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A network that draws no random numbers."""
    return watched("test_resnet", **kwargs)


@register_model
def watched_vit(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A network that draws many: for its weights and for dropout."""
    return watched("test_vit", **{"drop_rate": 0.5, **kwargs})


def config(out: Path, **changes: Any) -> CompareConfig:
    settings: dict[str, Any] = {"models": MODELS, "data_options": DIGITS, "epochs": 2, "batch_size": 8, "seeds": 2}
    settings |= {"device": "cpu", "lr": 3e-3, "out": str(out), "jobs": 1, **changes}
    return CompareConfig(**settings)
