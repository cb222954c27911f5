"""The same scene at another resolution: what a module with fitted tables makes of it is the same scene."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from foveate.nn import GlobalSelfAttention2d
from tests.comparison import relative_error


def smooth(channels: int, *sides: int) -> Tensor:
    """Return a map of slow waves ``(1, channels, *sides)``, sampled in the middle of each position."""
    height, width = ((torch.arange(side, dtype=torch.float64) + 0.5) / side for side in sides)
    waves = [
        torch.cos(2 * math.pi * (0.3 + 0.11 * c) * (height[:, None] + (1 + c % 3) * width)) for c in range(channels)
    ]
    return torch.stack(waves)[None]


@pytest.mark.parametrize("options", [{}, {"part": "positional"}, {"part": "columns"}, {"part": "rows"}])
def test_global_self_attention(options: dict[str, str]) -> None:
    torch.manual_seed(0)
    small = GlobalSelfAttention2d(6, feat_size=(13, 11), num_heads=2, dtype=torch.float64, **options).eval()
    for name in small.tables:
        offsets = torch.linspace(-1, 1, len(getattr(small, name)), dtype=torch.float64)[:, None]
        with torch.no_grad():
            getattr(small, name).copy_(0.3 * torch.cos(offsets * torch.tensor([1.0, 1.7, 2.4]) + 0.2))
    large = copy.deepcopy(small)
    large.resize((39, 33))
    expected, got = small(smooth(6, 13, 11)), large(smooth(6, 39, 33))[:, :, 1::3, 1::3]
    assert relative_error(got, expected) < 0.15
    reloaded = GlobalSelfAttention2d(6, feat_size=(39, 33), num_heads=2, dtype=torch.float64, **options).eval()
    with pytest.warns(UserWarning, match="relative tables"):
        reloaded.load_state_dict(small.state_dict())
    torch.testing.assert_close(reloaded(smooth(6, 39, 33)), large(smooth(6, 39, 33)))
