"""Which maps of a network decoders and detectors get."""

from __future__ import annotations

import pytest
import timm
import torch

from foveate.models.dense import Pyramid, build_detector, build_segmenter


@pytest.mark.parametrize("name", ["gsa_resnet_tiny", "cram_resnet_tiny", "resnet10t"])
def test_a_pyramid_has_the_maps_of_the_network(name: str) -> None:
    pyramid = Pyramid(name, {"num_classes": 7}).eval()
    network = timm.create_model(name, features_only=True).eval()
    network.load_state_dict(pyramid.network.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found, all_maps = pyramid(image), network(image)
    for x, reduction, channels in zip(found, pyramid.reductions, pyramid.channels, strict=True):
        assert x.shape == (1, channels, 64 // reduction, 96 // reduction)
        assert torch.equal(x, [y for y in all_maps if y.shape[-1] == x.shape[-1]][-1])


@pytest.mark.slow
def test_maps_that_were_chosen_are_those_of_a_detector() -> None:
    for chosen, reductions in (([1, 2, 3, 4], [4, 8, 16, 32]), ([2, 3, 4], [8, 16, 32])):
        detector = build_detector("resnet18", {"out_indices": chosen}, num_classes=3, img_size=(64, 64))
        assert detector.model.backbone.pyramid.reductions == reductions


def test_deeplab_dilates_where_the_network_can_and_leaves_stages_out_where_not() -> None:
    dilated = build_segmenter("resnet10t", {}, num_classes=2, decoder="deeplabv3plus").eval()
    assert dilated.model.encoder.pyramid.reductions[-1] == 16
    assert len(list(dilated.model.encoder.pyramid.network.layer4.parameters())) > 0
    short = build_segmenter("edgenext_xx_small", {}, num_classes=2, decoder="deeplabv3plus")
    assert short.model.encoder.pyramid.reductions == [4, 8, 16]
    with torch.no_grad():
        assert dilated(torch.randn(1, 3, 70, 50)).shape == (1, 2, 70, 50)


def test_deeplab_learns_from_a_batch_of_one_image() -> None:
    network = build_segmenter("resnet10t", {}, num_classes=2, decoder="deeplabv3plus")
    norm = next(module[2] for module in network.modules() if type(module).__name__ == "ASPPPooling")
    two, one = torch.randn(2, 3, 64, 64), torch.randn(1, 3, 64, 64)
    network(two)
    before = norm.running_mean.clone()
    network(one).sum().backward()
    assert torch.equal(norm.running_mean, before)
    assert norm.weight.grad.isfinite().all()
    network(two)
    assert not torch.equal(norm.running_mean, before)
