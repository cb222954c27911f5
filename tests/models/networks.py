"""Networks of timm's for the tests of insertion."""

from __future__ import annotations

import timm
import torch
from torch import nn


def network(name: str, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    narrower = {"mlp_ratio": 1 / 32} if name.startswith("vgg") else {}  # the head is then no larger than the rest
    return timm.create_model(name, num_classes=7, **narrower, **kwargs).eval()
