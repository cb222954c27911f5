"""Networks with inserted attention in several places at once, by their registered names."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.utils import reparameterize_model
from torchvision.models.detection import fasterrcnn_resnet50_fpn

import foveate
from foveate.models.inspection import attention_modules
from foveate.nn import GlobalSelfAttention2d, PositionwiseAttention2d, RectangularAttention2d


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [("cram_resnet_tiny", RectangularAttention2d), ("positionwise_resnet_tiny", PositionwiseAttention2d)],
)
def test_a_list_of_places_has_a_module_each(name: str, kind: type) -> None:
    model = timm.create_model(name, num_classes=10, at=[1, "layer2", -1])
    modules = attention_modules(model)
    assert list(modules) == ["layer1.attention", "layer2.attention", "layer4.attention"]
    sizes = []
    for module in modules.values():
        assert isinstance(module, kind)
        module.register_forward_hook(lambda m, inputs, output: sizes.append(tuple(output.shape[1:])))
    model(torch.randn(2, 3, 24, 40)).sum().backward()
    assert sizes == [(32, 24, 40), (96, 12, 20), (384, 3, 5)]
    assert all(parameter.grad is not None for parameter in model.parameters())
    one = timm.create_model(name, num_classes=10, at=[2])
    other = timm.create_model(name, num_classes=10, at=2)
    assert list(attention_modules(one)) == list(attention_modules(other)) == ["layer2.attention"]


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ([2, "layer2"], "'layer2' has attention already"),
        ([1, 9], "at=9 is no stage"),
        ([], r"at must be an index .*; got \[\]"),
        (1.5, "at must be an index .*; got 1.5"),
    ],
)
def test_places_that_are_none_are_refused(at: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model("cram_resnet_tiny", num_classes=10, at=at)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("levit_conv_128s", "stages.0.blocks.1.attn.qkv"),
        ("efficientvit_m0", "stages.0.blocks.0.mixer.m.attn.qkvs.1"),
        ("repvit_m0_9", -2),
    ],
)
def test_attention_stays_when_a_network_fuses_its_layers(name: str, at: int | str) -> None:
    torch.manual_seed(0)
    network = foveate.insert(timm.create_model(name, num_classes=5), RectangularAttention2d, at=at).eval()
    image = torch.randn(1, *network.pretrained_cfg["input_size"])
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        expected = network(image)
        fused = reparameterize_model(network)
        torch.testing.assert_close(fused(image), expected, rtol=1e-4, atol=1e-5)
    (attention,) = [module for module in fused.modules() if isinstance(module, RectangularAttention2d)]
    with torch.no_grad():
        called = []
        attention.register_forward_hook(lambda module, inputs, output: called.append(output))
        fused(image)
    assert len(called) == 1


def test_places_in_the_backbone_of_a_detector() -> None:
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=64, max_size=96).eval()
    names = list(detector.state_dict())
    assert foveate.insert(detector, RectangularAttention2d, at="backbone.body.layer3") is detector
    foveate.replace(detector, GlobalSelfAttention2d, at=["backbone.body.layer4.1.conv2"], img_size=64)
    assert {name: type(module) for name, module in attention_modules(detector).items()} == {
        "backbone.body.layer3.attention": RectangularAttention2d,
        "backbone.body.layer4.1.conv2": GlobalSelfAttention2d,
    }
    assert [name for name in detector.state_dict() if "attention" not in name and "layer4.1.conv2" not in name] == [
        name for name in names if "layer4.1.conv2" not in name
    ]
    called = []
    for module in attention_modules(detector).values():
        module.register_forward_hook(lambda module, inputs, output: called.append(type(module)))
    assert set(detector([torch.rand(3, 64, 64)])[0]) == {"boxes", "labels", "scores"}
    assert called == [RectangularAttention2d, GlobalSelfAttention2d]
    for at in ("rpn", "roi_heads.box_head", -1):
        with pytest.raises(ValueError, match=r"backbone|feature_info"):
            foveate.insert(detector, RectangularAttention2d, at=at)


@pytest.mark.parametrize("name", ["tresnet_m", "csatv2"])
def test_stems_that_move_pixels_to_channels(name: str) -> None:
    network = timm.create_model(name, num_classes=5)
    (found,) = attention_modules(foveate.insert(network, RectangularAttention2d, at=-2)).values()
    sizes = []
    found.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[1]))
    network.eval()(torch.randn(1, *network.pretrained_cfg["input_size"]))
    assert sizes == [network.feature_info[-2]["num_chs"]]
