"""Grad-CAM against its definition, and networks that are left exactly as they were by it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import foveate
from foveate.explain.records import GRADCAM
from foveate.nn import RectangularAttention2d
from tests.explain.untouched import Snapshot, lived_in
from tests.models.test_networks_of_others import Merging


def network(name: str = "conv_resnet_tiny", **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7, **kwargs).eval()


def by_definition(model: nn.Module, layer: str, images: torch.Tensor, targets: list[int]) -> torch.Tensor:
    """``max(Σ_k α_k A_k, 0)`` over its mean, one image at a time."""
    maps = []
    for image, target in zip(images, targets, strict=True):
        kept: list[torch.Tensor] = []
        handle = model.get_submodule(layer).register_forward_hook(lambda m, i, output, kept=kept: kept.append(output))
        logits = model(image[None])
        handle.remove()
        (gradient,) = torch.autograd.grad(logits[0, target], kept[0])
        alpha = gradient.mean((2, 3), keepdim=True)
        evidence = (alpha * kept[0]).sum(1).clamp(min=0)
        maps.append((evidence / evidence.mean()).detach())
    return torch.cat(maps)


@pytest.mark.parametrize("targets", [None, [3, 0], torch.tensor([3, 0])], ids=str)
@pytest.mark.parametrize(("name", "layer"), [("conv_resnet_tiny", "layer4"), ("efficientnet_b0", "blocks.6")])
def test_the_map_is_that_of_the_definition(name: str, layer: str, targets: list[int] | torch.Tensor | None) -> None:
    model, images = network(name), torch.randn(2, 3, 96, 64)
    logits = model(images).detach()
    explanation = foveate.explain(model, images, method="gradcam", targets=targets)
    (record,) = explanation.records
    classes = logits.argmax(1).tolist() if targets is None else list(map(int, targets))
    torch.testing.assert_close(record.map, by_definition(model, layer, images, classes), rtol=1e-4, atol=1e-4)
    assert (record.name, record.kind, record.scale, record.target) == (layer, "GradCAM", GRADCAM, tuple(classes))
    assert record.map.std() > 0.1
    torch.testing.assert_close(explanation.logits, logits)


def test_networks_with_attention_are_explained_by_it_on_request() -> None:
    model, images = network("cram_resnet_tiny"), torch.randn(2, 3, 33, 48)
    (record,) = foveate.explain(model, images, method="gradcam").records
    classes = model(images).argmax(1).tolist()
    torch.testing.assert_close(record.map, by_definition(model, "layer4", images, classes), rtol=1e-4, atol=1e-4)
    assert foveate.explain(model, images).records[0].kind == "RectangularAttention2d"


def test_several_layers_come_in_the_order_asked_for() -> None:
    model, images = network(), torch.randn(1, 3, 32, 32)
    explanation = foveate.explain(model, images, names=["layer3", "layer1"], targets=[2])
    assert [record.name for record in explanation.records] == ["layer3", "layer1"]
    for record in explanation.records:
        torch.testing.assert_close(record.map, by_definition(model, record.name, images, [2]), rtol=1e-4, atol=1e-4)


class InPlace(nn.Module):
    """Works in place on the output of the layer that is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 5, 3)
        self.head = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        return self.head(torch.relu_(x).mean((2, 3)))


def test_a_layer_that_the_next_one_overwrites() -> None:
    torch.manual_seed(0)
    model, images = InPlace().eval(), torch.randn(2, 3, 9, 11)
    (record,) = foveate.explain(model, images, names=["features"], targets=[1, 2]).records
    feature = model.features(images).detach()
    for index, target in enumerate((1, 2)):
        x = feature[index : index + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.head(torch.relu(x).mean((2, 3)))[0, target], x)
        evidence = (gradient.mean((2, 3), keepdim=True) * x).sum(1).clamp(min=0).detach()
        torch.testing.assert_close(record.map[index], (evidence / evidence.mean())[0], rtol=1e-4, atol=1e-4)


def test_evidence_that_is_the_same_everywhere_or_nowhere_is_flat() -> None:
    """The package's own maps are stretched to [0, 1], whatever there is."""
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(1.0)
        model[3].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    for target in (0, 1):  # for the one everywhere, for the other nowhere
        (record,) = foveate.explain(model, torch.randn(1, 3, 5, 7), names=["0"], targets=[target]).records
        torch.testing.assert_close(record.map, torch.ones(1, 5, 7))


@pytest.mark.parametrize("name", ["conv_resnet_tiny", "cram_resnet_tiny", "gsa_resnet_tiny"])
def test_the_network_is_left_exactly_as_it_was(name: str) -> None:
    model, images = lived_in(network(name, drop_rate=0.3)), torch.randn(2, 3, 32, 32)
    snapshot = Snapshot(model)
    first = foveate.explain(model, images, method="gradcam")
    snapshot.assert_unchanged()
    assert not images.requires_grad
    assert images.grad is None
    for context in (torch.no_grad, torch.inference_mode):  # where gradients are off, they are on for as long as needed
        with context():
            again = foveate.explain(model, images * 1, method="gradcam")
        assert torch.equal(again.records[0].map, first.records[0].map)
        snapshot.assert_unchanged()


def test_a_frozen_network_is_explained_and_stays_frozen() -> None:
    model, images = network(), torch.randn(2, 3, 32, 32)
    expected = foveate.explain(model, images).records[0].map
    model.requires_grad_(False)
    snapshot = Snapshot(model)
    assert torch.equal(foveate.explain(model, images).records[0].map, expected)
    snapshot.assert_unchanged()


class Failing(nn.Module):
    """Fails in the forward or in the backward pass."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.where == "forward":
            raise RuntimeError("no forward")
        x = x * 1
        x.register_hook(self.fail)
        return x

    def fail(self, gradient: torch.Tensor) -> None:
        raise RuntimeError("no backward")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_network_is_left_as_it_was_when_the_pass_fails(where: str) -> None:
    parts = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), Failing(where), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = lived_in(nn.Sequential(*parts))
    images = torch.randn(2, 3, 9, 9)
    snapshot = Snapshot(model)
    with pytest.raises(RuntimeError, match=f"no {where}"):
        foveate.explain(model, images, names=["1"])
    snapshot.assert_unchanged()


class Aside(nn.Module):
    """Computes something that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.side, self.head = nn.Conv2d(3, 2, 1), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.side(x)
        return self.head(x.mean((2, 3)))


def test_bad_input_is_refused() -> None:
    model, images = network(), torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match="targets must name one class for each of the 2 images; got 1"):
        foveate.explain(model, images, targets=[1])
    with pytest.raises(ValueError, match="a class in targets must be below 7, the number of classes; got 7"):
        foveate.explain(model, images, targets=[1, 7])
    with pytest.raises(ValueError, match="a class in targets must be an integer"):
        foveate.explain(model, images, targets=[1, "cat"])
    with pytest.raises(ValueError, match="names must name a module for Grad-CAM to look at; got none"):
        foveate.explain(model, images, names=[])
    with pytest.raises(ValueError, match="did you mean 'layer4'"):
        foveate.explain(model, images, names=["layer5"])
    with pytest.raises(ValueError, match=r"'fc' puts out shape \(2, 7\), where Grad-CAM needs a feature map"):
        foveate.explain(model, images, names=["fc"])
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"Sequential has no feature_info.*names=…"):
        foveate.explain(plain, images)
    model.unused = nn.Identity()
    with pytest.raises(ValueError, match="'unused' is called 0 times in a pass"):
        foveate.explain(model, images, names=["unused"])
    with pytest.raises(ValueError, match="the logits do not depend on what 'side' puts out"):
        foveate.explain(Aside(), images, names=["side"])
    last = network()
    last.output_fmt = "NHWC"  # as timm's Swin says of itself
    for other in (timm.create_model("test_vit", num_classes=7, img_size=64), last):
        with pytest.raises(ValueError, match=r"where Grad-CAM needs a feature map.*convolutional networks"):
            foveate.explain(other, torch.randn(1, 3, 64, 64))


def test_inserting_attention_changes_what_explains() -> None:
    model, images = network(), torch.randn(1, 3, 32, 32)
    assert [record.kind for record in foveate.explain(model, images).records] == ["GradCAM"]
    foveate.insert(model, RectangularAttention2d, at=-1)
    assert [record.kind for record in foveate.explain(model, images).records] == ["RectangularAttention2d"]


class ChannelsLast(nn.Module):
    """Puts out maps (B, H, W, C) between layers that take (B, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.last = nn.Linear(8, 8)
        self.head = nn.Linear(8, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize("listed", [True, False])
def test_maps_whose_channels_come_last_are_refused(listed: bool) -> None:
    model, images = ChannelsLast(), torch.randn(2, 3, 32, 32)  # as many rows as channels
    if listed:
        model.feature_info = [{"module": "last", "num_chs": 8, "reduction": 4}]
        images = torch.randn(2, 3, 40, 32)
    with pytest.raises(ValueError, match="last"):
        foveate.explain(model, images, names=["last"], method="gradcam")
    assert foveate.explain(model, images, names=["stem"], method="gradcam").records[0].map.shape[0] == 2


class Parameter(nn.Parameter):
    """A subclass, as of manifolds: only its owner knows how to copy it."""


def test_parameters_of_a_subclass_learn_on_and_nothing_is_merged() -> None:
    model, images = network(), torch.randn(2, 3, 32, 32)
    features = model.fc.in_features
    model.fc = nn.Sequential(Merging(features, features), nn.Linear(features, 7))
    model.fc[1].weight = Parameter(model.fc[1].weight.detach())
    model.train()
    before = model.fc[0].weight.clone()
    foveate.explain(model, images, method="gradcam")
    assert (model.fc[1].weight.requires_grad, model.fc[1].weight.grad) == (True, None)
    assert torch.equal(model.fc[0].weight, before)
    model.requires_grad_(False)
    foveate.explain(model, images, method="gradcam")
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_network_that_has_diverged_is_named() -> None:
    model = network()
    nn.init.constant_(model.fc.weight, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        foveate.explain(model, torch.randn(2, 3, 32, 32), method="gradcam")
