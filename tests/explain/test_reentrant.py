"""One network explained by several threads at once, compiled, wrapped, frozen, and of other kinds than classifiers."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from torch import nn

import foveate
from foveate.explain import attention_off
from tests.explain.untouched import Snapshot, lived_in

FAMILIES = ("expatt", "gsa", "aa", "cram", "positionwise")


def network(name: str, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **kwargs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "calls"), [("cram_resnet_tiny", 100), ("gsa_resnet_tiny", 40), ("conv_resnet_tiny", 40)]
)
def test_every_thread_gets_the_records_of_its_own_image(name: str, calls: int) -> None:
    model = lived_in(network(name))
    images = torch.randn(4, 1, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    sequential = [foveate.explain(model, image) for image in images]
    before = Snapshot(model)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda call: (call % 4, foveate.explain(model, images[call % 4])), range(calls)))
    for index, explanation in found:
        for record, expected in zip(explanation.records, sequential[index].records, strict=True):
            assert torch.equal(record.map, expected.map)
            assert record.numbers is None or torch.equal(record.numbers, expected.numbers)
        assert torch.equal(explanation.logits, sequential[index].logits)
    before.assert_unchanged()


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [one if one in ("gsa", "cram") else pytest.param(one, marks=pytest.mark.exhaustive) for one in FAMILIES]
)
def test_compiled_networks_give_the_records_of_the_eager_ones(family: str) -> None:
    model = network(f"{family}_resnet_tiny")
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    wanted = foveate.explain(model, image)
    compiled = torch.compile(model, backend="eager")
    compiled(image)
    others = [compiled, nn.DataParallel(model)]
    if family == "cram":
        nested, in_place = network("cram_resnet_tiny"), network("cram_resnet_tiny")
        nested.layer3 = torch.compile(nested.layer3, backend="eager")
        nested.layer2.compile(backend="eager")
        in_place.compile(backend="eager")
        others += [nested, in_place]
    for other in others:
        other(image)
        found = foveate.explain(other, image)
        assert [record.name for record in found.records] == [record.name for record in wanted.records]
        for record, expected in zip(found.records, wanted.records, strict=True):
            assert torch.equal(record.map, expected.map)
    with attention_off(compiled, "content" if family == "gsa" else "attention"):
        off = compiled(image)
    assert not torch.allclose(off, wanted.logits, rtol=1e-4)


def test_a_replaced_normalisation_is_called() -> None:
    """Weights with any normalisation that is a gain and a shift for each channel; an error with others."""
    torch.manual_seed(0)
    module = foveate.nn.GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=(5, 7)).double().eval()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    for norm in (nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True), nn.Identity()):
        module.norm = norm.double().eval()
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.add_(torch.randn_like(parameter))
            (record,) = foveate.explain.attention_records(module, x)
            output = module(x)
            for row, column in ((0, 0), (2, 3), (4, 6)):
                error = record.weights.attended((row, column)) - output[:, :, row, column]
                assert error.abs().max() < 1e-9 * output.abs().max()
    module.norm = nn.Tanh()
    with pytest.raises(ValueError, match="Tanh"):
        foveate.explain.attention_records(module, x)


@pytest.mark.slow
def test_networks_built_under_inference_mode() -> None:
    with torch.inference_mode():
        models = network("cram_resnet_tiny"), network("conv_resnet_tiny")
    image = torch.randn(1, 3, 24, 32)
    wanted = [foveate.explain(network(name), image) for name in ("cram_resnet_tiny", "conv_resnet_tiny")]
    for model, expected in zip(models, wanted, strict=True):
        found = foveate.explain(model, image)
        assert torch.allclose(found.records[0].map, expected.records[0].map, atol=1e-6)


@pytest.mark.slow
def test_a_network_that_is_no_classifier_gives_records_and_its_output() -> None:
    """Dense outputs, and torchvision's detector over a backbone with attention."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    torch.manual_seed(0)
    body = network("cram_resnet_tiny")
    dense = nn.Sequential(*list(body.children())[:-2], nn.Conv2d(384, 4, 1)).eval()
    image = torch.rand(1, 3, 64, 64)
    explanation = foveate.explain(dense, image)
    assert explanation.logits is None
    assert torch.equal(explanation.output, dense(image))
    assert len(explanation.records) == 1
    with pytest.raises(ValueError, match="no classifier"):
        explanation.top(1)
    backbone = BackboneWithFPN(body, {"layer3": "0", "layer4": "1"}, [192, 384], 16)
    anchors = AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3)
    detector = FasterRCNN(backbone, num_classes=3, rpn_anchor_generator=anchors, min_size=64, max_size=64).eval()
    found = foveate.explain(detector, image)
    assert found.logits is None
    assert found.records[0].numbers.shape == (1, 5)
    assert set(found.output[0]) == {"boxes", "labels", "scores"}
    resized = network("gsa_resnet_tiny", img_size=32)
    detector.backbone = BackboneWithFPN(resized, {"layer3": "0", "layer4": "1"}, [192, 384], 16)
    foveate.resize_relative_tables(detector, 64)
    assert resized.layer1[0].conv2.feat_size == (64, 64)
    assert resized.layer4[0].conv2.feat_size == (16, 16)
    detector.transform.min_size, detector.transform.max_size = (128,), 128  # to which it resizes what it is given
    foveate.resize_relative_tables(detector, 32)
    assert resized.layer1[0].conv2.feat_size == (32, 32)


def test_a_map_larger_than_the_tables_is_warned_of_once() -> None:
    module = foveate.nn.GlobalSelfAttention2d(6, num_heads=2, feat_size=(4, 5)).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            module(torch.randn(1, 6, 7, 5))
        module(torch.randn(1, 6, 4, 5))
    assert len(caught) == 1
