"""Attention in place of the 3×3 convolutions of networks of timm's, of torchvision's and of one's own."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18

import foveate
from foveate.models.inspection import attention_modules
from foveate.nn import AttentionAugmentedConv2d, ExpAttConv2d, GlobalSelfAttention2d, RectangularAttention2d


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "attention", "at", "options"),
    [
        ("gsa_resnet50", GlobalSelfAttention2d, (1, 2, 3, 4), {}),
        ("expatt_resnet50", ExpAttConv2d, ("layer2", "layer3", "layer4"), {"radius": 3.0}),
        ("aa_resnet50", AttentionAugmentedConv2d, (3, -1), {"key_ratio": 0.1}),
    ],
)
def test_a_network_of_timm_becomes_ours(name: str, attention: Any, at: Any, options: dict[str, Any]) -> None:
    size = (70, 100)
    kwargs = dict(options)
    if name == "aa_resnet50":
        kwargs |= {"stages": (3, 4)}
    if attention is not ExpAttConv2d:
        kwargs |= {"img_size": size}
    torch.manual_seed(0)
    expected = timm.create_model(name, num_classes=3, **kwargs).eval()
    network = foveate.replace(
        timm.create_model("resnet50", num_classes=3), attention, at=at, img_size=size, **options
    ).eval()
    torch.manual_seed(1)
    for parameter in expected.parameters():
        nn.init.normal_(parameter, std=0.05)
    network.load_state_dict(expected.state_dict())  # strictly: the same names and sizes, those of the tables too
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(network(image), expected(image))


@pytest.mark.slow
def test_other_networks_keep_dtype_mode_and_the_rest_of_their_weights() -> None:
    network = resnet18(num_classes=2).double().train()
    kept = {name: value.clone() for name, value in network.state_dict().items() if not name.startswith("layer3")}
    assert foveate.replace(network, GlobalSelfAttention2d, at="layer3", img_size=64, num_heads=4) is network
    replaced = attention_modules(network)
    assert {name: module.feat_size for name, module in replaced.items()} == {
        "layer3.0.conv1": (8, 8),
        "layer3.0.conv2": (4, 4),
        "layer3.1.conv1": (4, 4),
        "layer3.1.conv2": (4, 4),
    }
    assert all(module.training and module.qkv.weight.dtype == torch.float64 for module in replaced.values())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in kept.items())
    outputs = network(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    outputs.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


class Own(nn.Module):
    """A network of a user's, of which one convolution is dilated, one grouped and one has no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(3, 20, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.shrinking = nn.Conv2d(20, 20, 3)
        self.repeated = nn.Sequential(nn.Conv2d(20, 20, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.repeated(self.repeated(self.shrinking(self.grouped(self.dilated(x)))))


def test_a_dilated_convolution_of_ones_own() -> None:
    network = foveate.replace(Own(), ExpAttConv2d, at="dilated", img_size=(11, 13))
    assert network.dilated.conv.dilation == (2, 2)
    assert network(torch.randn(1, 3, 11, 13)).shape == (1, 20, 9, 11)


def test_the_convolution_beside_attention_stays() -> None:
    network = foveate.replace(timm.create_model("resnet18"), ExpAttConv2d, at="layer4.0.conv2")
    kept = network.layer4[0].conv2.conv
    foveate.replace(network, GlobalSelfAttention2d, at="layer4")
    assert network.layer4[0].conv2.conv is kept
    assert [type(module) for module in attention_modules(network).values()].count(GlobalSelfAttention2d) == 3


@pytest.mark.parametrize(
    ("model", "attention", "at", "options"),
    [
        (Own, GlobalSelfAttention2d, "grouped", {}),
        (Own, GlobalSelfAttention2d, "shrinking", {"num_heads": 4}),
        (Own, GlobalSelfAttention2d, "repeated", {"num_heads": 4}),
        (Own, GlobalSelfAttention2d, "dilated", {"num_heads": 3}),  # does not divide the channels
        (Own, GlobalSelfAttention2d, ("dilated", "no_such"), {"num_heads": 4}),
        (Own, GlobalSelfAttention2d, (), {}),
        (Own, GlobalSelfAttention2d, -1, {}),
        (Own, GlobalSelfAttention2d, None, {}),
        (Own, GlobalSelfAttention2d, 1.5, {}),
        (Own, RectangularAttention2d, "dilated", {}),
        (Own, ExpAttConv2d, "dilated", {"no_such": 1}),
        (lambda: timm.create_model("efficientnet_b0"), GlobalSelfAttention2d, -1, {}),
        (lambda: timm.create_model("resnet18"), GlobalSelfAttention2d, 7, {}),
        (lambda: timm.create_model("resnet18"), GlobalSelfAttention2d, -1, {"img_size": 0}),
    ],
)
def test_what_cannot_be_replaced_is_refused_and_changes_nothing(
    model: Any, attention: Any, at: Any, options: dict[str, Any]
) -> None:
    network = model()
    before = dict(network.named_modules())
    with pytest.raises(ValueError):
        foveate.replace(network, attention, at=at, **options)
    assert dict(network.named_modules()) == before
