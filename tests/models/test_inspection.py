"""What is known of a network before it is run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foveate.models.building import check_classifier


class Gated(nn.Module):
    """Looks at values on its way, which the meta device has not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((2, 3))
        return self.fc(mean if mean.sum().item() <= 0 else -mean)


def test_a_network_that_looks_at_values_is_tried_on_the_cpu() -> None:
    network = Gated()
    check_classifier("gated", network, num_classes=5, img_size=(7, 11))
    assert network.training
    with pytest.raises(ValueError, match=r"gated gives \(1, 5\) for one image"):
        check_classifier("gated", network, num_classes=6, img_size=(7, 11))
