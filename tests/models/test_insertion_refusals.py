"""Insertions that are refused, and networks that need more than a dry run."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

import foveate
from foveate.nn import ExplicitAttention2d, PositionwiseAttention2d, RectangularAttention2d
from tests.comparison import relative_error
from tests.models.networks import network


def test_a_place_that_would_shift_the_intermediate_maps_is_refused():
    """VGG counts its layers: one more behind a convolution, which has weights, would move all stages by one."""
    model = network("vgg11_bn")
    with pytest.raises(ValueError, match="would not be computed"):
        foveate.insert(model, RectangularAttention2d, at="features.8")


@pytest.mark.slow
def test_a_failed_insertion_changes_nothing():
    model = network("resnet18")
    shape = str(model)
    for at, message in [
        (9, r"at=9 is no stage of ResNet: allowed are -5 to 4 \(act1, layer1"),
        (-6, r"at=-6 is no stage"),
        ("layer9", r"at='layer9' names no module of ResNet; did you mean 'layer\d'"),
        ("fc", r"'fc' returns \(1, 7\), not feature maps"),
        (1.5, r"at must be an index"),
        (True, r"at must be an index"),
    ]:
        with pytest.raises(ValueError, match=message):
            foveate.insert(model, RectangularAttention2d, at=at)
    for attention, options in ((RectangularAttention2d, {"colour": 1}), ("cram", {})):
        with pytest.raises(ValueError, match="attention must be a class called as"):
            foveate.insert(model, attention, **options)
    with pytest.raises(ValueError, match="sharpness must be"):
        foveate.insert(model, RectangularAttention2d, sharpness=-1.0)
    for attention, options in ((ExplicitAttention2d, {"dim_out": 64}), (ExplicitAttention2d, {"stride": 2})):
        with pytest.raises(ValueError, match=r"ExplicitAttention2d makes .* must keep the shape"):
            foveate.insert(model, attention, **options)
    with pytest.raises(ValueError, match="attention must be a module; got int"):
        foveate.insert(model, lambda channels, device, dtype: channels)
    with pytest.raises(ValueError, match="model must be a network"):
        foveate.insert("resnet18", RectangularAttention2d)
    assert str(model) == shape


@pytest.mark.slow
def test_a_second_insertion_at_the_same_place_is_refused():
    model = foveate.insert(network("resnet18"), RectangularAttention2d)
    with pytest.raises(ValueError, match="'layer3' has attention already"):
        foveate.insert(model, PositionwiseAttention2d)


def test_a_network_without_stages_wants_a_name():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())

        def forward(self, x):
            return self.body(x).mean((2, 3))

    model = Network()
    with pytest.raises(ValueError, match="has no feature_info"):
        foveate.insert(model, RectangularAttention2d)
    image = torch.randn(2, 3, 5, 7)
    before = model(image)
    assert 0 < relative_error(foveate.insert(model, RectangularAttention2d, at="body")(image), before) < 0.2
    assert list(dict(model.named_children())) == ["body"]
    sequence = foveate.insert(Network().body, RectangularAttention2d, at="1")
    assert isinstance(sequence.get_submodule("1.attention"), RectangularAttention2d)


@pytest.mark.slow
def test_a_transformer_is_refused():
    with pytest.raises(ValueError, match="not feature maps"):
        foveate.insert(network("vit_tiny_patch16_224"), RectangularAttention2d, at="blocks.3")


def test_maps_with_their_channels_last_that_nobody_lists_are_refused() -> None:
    class Last(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    model = nn.Sequential(nn.Conv2d(3, 6, 1), Last(), nn.Linear(6, 4))
    with pytest.raises(ValueError, match="channels last"):
        foveate.insert(model, RectangularAttention2d, at="1")


def test_maps_with_their_channels_last_are_refused() -> None:
    network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, depths=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="channels last"):
        foveate.insert(network, RectangularAttention2d, at=-2)


class ForSmallImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4))
        self.last = nn.Linear(6 * 7 * 7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.features(x).flatten(1))


def test_networks_of_one_size_are_tried_with_that() -> None:
    with pytest.raises(ValueError, match="img_size"):
        foveate.insert(ForSmallImages(), RectangularAttention2d, at="features")
    own = foveate.insert(ForSmallImages(), RectangularAttention2d, at="features", img_size=28)
    assert own(torch.randn(2, 1, 28, 28)).shape == (2, 3)
    assert isinstance(own.features.attention, RectangularAttention2d)
    other = timm.create_model("botnet26t_256", img_size=224)  # of which timm says elsewhere what it was built for
    assert foveate.insert(other, RectangularAttention2d, at=1) is other
    grey = timm.create_model("tresnet_m", in_chans=1)  # whose stem has sixteen
    assert foveate.insert(grey, RectangularAttention2d) is grey
    detector = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None)
    assert foveate.insert(detector, RectangularAttention2d, at="backbone.features") is detector
