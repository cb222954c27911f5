"""Networks to export: of every family, and with inserted attention, none of whose parts is silent."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

import foveate

TINY = ("conv", "expatt", "gsa", "aa", "cram", "positionwise")
INSERTED = {"cram": foveate.nn.RectangularAttention2d, "positionwise": foveate.nn.PositionwiseAttention2d}
SIDE = 32


def network(name: str, img_size: int = SIDE, **options: Any) -> nn.Module:
    """Build ``name``, or ``NAME+cram`` with what is inserted, in evaluation mode; weights from a fixed seed.

    Running statistics fit the weights, so that the activations stay in range at any depth, and no branch is at zero,
    where timm and the gates start.
    """
    torch.manual_seed(0)
    base, _, inserted = name.partition("+")
    size = {"img_size": img_size} if base in foveate.models.registered() else {}
    model = timm.create_model(base, num_classes=11, **size, **options)
    if inserted:
        foveate.insert(model, INSERTED[inserted], -2)
    for key, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            if key.endswith("bn3"):
                nn.init.constant_(module.weight, 0.05)
        if isinstance(module, foveate.nn.RectangularAttention2d):
            nn.init.normal_(module.readout.weight, std=0.1)
        if isinstance(module, foveate.nn.PositionwiseAttention2d):
            nn.init.normal_(module.score.weight, std=0.1)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, img_size + 3, img_size + 8))
    return model.eval()
