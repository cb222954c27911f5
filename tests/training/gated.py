"""A network with gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveate.nn import PositionwiseAttention2d, RectangularAttention2d

__all__ = ["Gated"]


class Gated(nn.Module):
    """A small network with a gate of each kind, and normalisation before and behind them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.rectangular = RectangularAttention2d(6)
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.positionwise = PositionwiseAttention2d(8)
        self.head = nn.Linear(8, 10)
        for parameter in (*self.rectangular.parameters(), *self.positionwise.parameters()):
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.rectangular(self.first(x)))
        return self.head(self.positionwise(x).mean((2, 3)))
