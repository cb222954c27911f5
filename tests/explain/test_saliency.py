"""One map per image, whatever the network: drawn, interpolated, received, or of gradients."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import foveate
from foveate.explain import attention_records, explain, saliency, shown_module
from foveate.functional import rectangle_map
from foveate.nn import PositionwiseAttention2d, RectangularAttention2d

pytestmark = pytest.mark.usefixtures("shapes")

HEIGHT, WIDTH = 46, 70


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    for module in model.modules():
        if isinstance(module, RectangularAttention2d | PositionwiseAttention2d):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.3)
    return model


def images() -> torch.Tensor:
    return torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def interpolated(map_: torch.Tensor) -> torch.Tensor:
    """Bilinear interpolation by a loop: a value stands in the middle of its part of the image."""
    rows, columns = map_.shape
    result = torch.empty(HEIGHT, WIDTH)
    for i in range(HEIGHT):
        for j in range(WIDTH):
            y = min(max((i + 0.5) * rows / HEIGHT - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / WIDTH - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = map_[top, left] * (1 - x + left) + map_[top, right] * (x - left)
            lower = map_[below, left] * (1 - x + left) + map_[below, right] * (x - left)
            result[i, j] = upper * (1 - y + top) + lower * (y - top)
    return result


@pytest.mark.slow
def test_a_rectangle_is_drawn_at_the_size_of_the_image() -> None:
    model = network("cram_resnet_tiny")
    module = model.get_submodule("layer3.attention")
    inputs: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    logits = model(images())
    handle.remove()
    found = saliency(model, images())
    numbers = module.rectangle(inputs[0]).detach()
    assert numbers.std(0).min() > 0
    expected = rectangle_map(numbers, HEIGHT, WIDTH, sharpness=module.sharpness)[:, 0]
    torch.testing.assert_close(found.map, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.predicted, logits.argmax(1))
    assert (found.name, found.kind) == ("layer3.attention", "RectangularAttention2d")
    (record,) = attention_records(model, images())
    assert torch.equal(found.rectangle, record.rectangle)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["positionwise_resnet_tiny", "gsa_resnet_tiny", "expatt_resnet_tiny"])
def test_other_attention_is_interpolated(name: str) -> None:
    model = network(name)
    found = saliency(model, images())
    (record,) = attention_records(model, images(), names=[found.name])
    for map_, drawn in zip(record.map, found.map, strict=True):
        torch.testing.assert_close(drawn, interpolated(map_), rtol=1e-5, atol=1e-5)
    assert torch.equal(found.predicted, model(images()).argmax(1))
    assert found.rectangle is None


@pytest.mark.slow
def test_a_plain_network_is_explained_by_grad_cam() -> None:
    """The last stage's Grad-CAM, computed here from the last stage's output and its gradient."""
    model = network("conv_resnet_tiny")
    outputs: list[torch.Tensor] = []
    handle = model.layer4.register_forward_hook(lambda *given: outputs.append(given[2].clone()) or outputs[0])
    logits = model(images())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), outputs[0])
    evidence = (gradient.mean((2, 3), keepdim=True) * outputs[0]).sum(1).clamp(min=0).detach()
    found = saliency(model, images())
    assert (found.name, found.kind) == ("layer4", "GradCAM")
    for map_, drawn in zip(evidence, found.map, strict=True):
        torch.testing.assert_close(drawn, interpolated(map_ / map_.mean()), rtol=1e-4, atol=1e-4)
    again = saliency(network("positionwise_resnet_tiny"), images(), method="gradcam")
    assert (again.name, again.kind) == ("layer4", "GradCAM")


@pytest.mark.slow
def test_the_last_module_with_a_map_of_some_size_is_shown() -> None:
    model = network("gsa_resnet_tiny")
    small = images()[:, :, :32, :28]
    sizes = {record.name: record.map[0].numel() for record in attention_records(model, small)}
    expected = [name for name, size in sizes.items() if size >= 64][-1]
    assert list(sizes)[-1] != expected
    assert shown_module(model, small) == expected
    assert shown_module(model, small[:, :, :7, :7]) == list(sizes)[-1]
    first = next(iter(sizes))
    assert saliency(model, images(), name=first).name == first


@pytest.mark.slow
def test_of_several_gates_the_deepest_large_one() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3)
    for stage in ("layer2", "layer3", "layer4"):
        foveate.insert(model, PositionwiseAttention2d, at=stage)
    assert saliency(model, torch.randn(1, 3, 128, 128)).name == "layer3.attention"  # 16×16, 8×8, 4×4


def test_bad_input_is_refused() -> None:
    model = network("cram_resnet_tiny")
    with pytest.raises(ValueError, match=r"did you mean 'layer3\.attention'"):
        saliency(model, images(), name="layer2.attention")
    with pytest.raises(ValueError, match="method must be one of auto, attention, gradcam"):
        saliency(model, images(), method="cam")
    plain = network("conv_resnet_tiny")
    with pytest.raises(ValueError, match="has no attention module"):
        saliency(plain, images(), method="attention")
    with pytest.raises(ValueError, match="has no attention module to ask"):
        shown_module(plain, images())
    assert explain(plain, images()).records


class Twice(nn.Module):
    """One gate that is called twice, by keyword, as networks of users may do."""

    def __init__(self, *, keyword: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)
        self.gate = PositionwiseAttention2d(8)
        for parameter in self.gate.parameters():
            nn.init.normal_(parameter, std=0.3)
        self.keyword = keyword

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        for _ in range(2):
            x = self.gate(x=x) if self.keyword else self.gate(x)
        return self.head(x.mean((2, 3)))


def test_of_a_gate_that_is_called_twice_the_last_map_is_taken_however_it_is_called() -> None:
    first, last = attention_records(Twice(keyword=False), images())
    assert not torch.equal(first.map, last.map)
    for keyword in (False, True):
        found = saliency(Twice(keyword=keyword), images())
        torch.testing.assert_close(found.map, last.resampled("bilinear"))


def test_attention_that_is_not_called_in_evaluation_is_named() -> None:
    network = timm.create_model("conv_resnet_tiny")
    network.auxiliary = foveate.nn.RectangularAttention2d(3)
    with pytest.raises(ValueError, match="'auxiliary'"):
        saliency(network, torch.randn(2, 3, 32, 32), name="auxiliary")
