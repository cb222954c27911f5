"""A network for the tests of files of weights."""

from __future__ import annotations

import timm
from torch import nn

from foveate.io import NetworkMeta


def network(name: str = "test_resnet", num_classes: int = 7) -> tuple[nn.Module, NetworkMeta]:
    kwargs = {"num_classes": num_classes, "in_chans": 3}
    meta = NetworkMeta(
        model=name,
        kwargs=kwargs,
        classes=[f"class {k}" for k in range(num_classes)],
        img_size=[33, 41],
        mean=[0.1, 0.2, 0.3],
        std=[0.4, 0.5, 0.6],
        crop_pct=0.9,
        interpolation="bicubic",
    )
    return timm.create_model(name, **kwargs), meta
