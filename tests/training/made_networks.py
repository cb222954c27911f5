"""Networks whose weights are all random."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from foveate.io import NetworkMeta


def shaken(name: str, **keywords: Any) -> nn.Module:
    """Build a network of which no two tensors are alike."""
    model = timm.create_model(name, **keywords)
    with torch.no_grad():
        for tensor in dict.fromkeys((*model.parameters(), *model.buffers())):
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
    return model.eval()


def meta_of(name: str, num_classes: int, **kwargs: Any) -> NetworkMeta:
    return NetworkMeta(
        model=name,
        kwargs={"num_classes": num_classes, **kwargs},
        classes=[str(index) for index in range(num_classes)],
        img_size=[64, 64],
        mean=[0.5] * 3,
        std=[0.5] * 3,
        crop_pct=1.0,
        interpolation="bicubic",
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
