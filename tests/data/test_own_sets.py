"""Data sets as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from foveate.data import ImageLoader, TransformConfig, make_loader


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


def test_targets_of_several_parts_count_as_one_image():
    class Placed(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> tuple[Image.Image, tuple[int, tuple[float, float]]]:
            return Image.new("RGB", (8, 8)), (index, (0.5, 0.25))

    def loader() -> ImageLoader:
        return make_loader(Placed(), transform=to_tensor, batch_size=4, training=True)

    whole = [labels.tolist() for _, (labels, _) in loader()]
    stopped = loader()
    iterator = iter(stopped)
    taken = [next(iterator)[1][0].tolist() for _ in range(2)]
    assert stopped.state_dict()["start"] == 8
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    assert taken + [labels.tolist() for _, (labels, _) in resumed] == whole
