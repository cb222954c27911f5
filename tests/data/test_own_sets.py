"""Data sets as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.data import TransformConfig, make_loader


class Described(torch.utils.data.Dataset):
    """A user's data set that calls something else ``samples``."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (32, 32)), index


@pytest.mark.parametrize("samples", [[Path("a"), Path("b"), Path("c")], {"x": 1}, np.arange(3), [{}, {}, {}], "abc"])
def test_data_sets_of_users_may_call_anything_samples(samples: Any) -> None:
    transform = TransformConfig(img_size=8, crop="none")
    loader = make_loader(Described(samples), transform=transform, batch_size=2, training=False)
    assert [labels.tolist() for _, labels in loader] == [[0, 1], [2]]
