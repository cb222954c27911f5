"""What is known of a network before it is run."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from foveate.models.building import check_classifier
from foveate.models.inspection import evaluating


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


def test_nothing_that_was_kept_for_evaluation_outlives_a_step_of_training() -> None:
    torch.manual_seed(0)
    network, image = timm.create_model("levit_128s", num_classes=5), torch.randn(1, 3, 224, 224)
    with evaluating(network), torch.no_grad():
        before = network(image)
        for name, parameter in network.named_parameters():
            if name.endswith("attention_biases"):
                parameter.normal_(std=3.0)
    with evaluating(network), torch.no_grad():
        after = network(image)
        wanted = network.eval()(image)
    torch.testing.assert_close(after, wanted)
    assert not torch.allclose(before, after)
