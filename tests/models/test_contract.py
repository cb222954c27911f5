"""timm's contract, for every registered network: a new one is tested by being registered."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import create_feature_extractor as timm_extractor
from timm.models import group_parameters
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import foveate
from tests.comparison import relative_error

NAMES = foveate.models.registered()
SIZE = (39, 53)
"""Odd, not square, and small enough for resnet152 on a CPU."""


def build(name: str, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7, img_size=64, **kwargs)


TRIED = (
    *(f"{family}_resnet26" for family in ("conv", "expatt", "gsa", "aa")),
    *("cram_resnet50", "cram_efficientnet_b0", "positionwise_mobilenetv3_large_100"),
)
"""With the tiny ones every family, inserted module and base; the others differ from these in their depth alone."""


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Return how what computes with a network is marked: of a deeper one only its outline is looked at every time."""
    if name.endswith("_tiny"):
        return []
    return [pytest.mark.slow] if name in TRIED else [pytest.mark.slow, pytest.mark.exhaustive]


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks(name)) for name in NAMES])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    """One network a name, in evaluation mode, shared by the tests that change nothing in it."""
    network = build(name).train()
    for key, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # running statistics that fit the random weights, for deep networks to say anything
            if key.endswith("bn3"):
                nn.init.constant_(module.weight, 0.02)  # timm starts them at zero, which would hide the blocks
    with torch.no_grad():
        network(torch.randn(4, 3, *SIZE))
    return network.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def logits(network, images):
    with torch.no_grad():
        return network(images)


def test_forward_in_parts(network, images, logits):
    assert logits.shape == (2, 7)
    assert not torch.allclose(logits[0], logits[1])
    assert logits.isfinite().all()
    with torch.no_grad():
        features = network.forward_features(images)
        assert features.shape[1] == network.num_features
        hidden = network.forward_head(features, pre_logits=True)
        assert hidden.shape == (2, network.head_hidden_size)
        assert torch.equal(network.forward_head(features), logits)
        assert torch.equal(network.get_classifier()(hidden), logits)
    assert network.num_classes == 7


def test_a_larger_square_image_is_taken_too(network):
    with torch.no_grad():
        assert network(torch.randn(1, 3, 97, 97)).isfinite().all()


def test_backward_reaches_every_parameter(network, images):
    network = copy.deepcopy(network).train()
    network(torch.cat([images, images.flip(3)])).square().mean().backward()
    missing = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing


def test_checkpointing_changes_no_output_and_no_gradient(network, images):
    results, original = [], network
    for checkpointing in (False, True):
        network = copy.deepcopy(original).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0  # a checkpointed block runs twice
        network.set_grad_checkpointing(checkpointing)
        out = network(images)
        out.square().mean().backward()
        results.append((out.detach(), {key: p.grad for key, p in network.named_parameters()}))
    (plain, gradients), (checkpointed, again) = results
    assert relative_error(checkpointed, plain) < 1e-5
    for key, gradient in gradients.items():
        assert (again[key] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6, key


def test_features_only_is_honest(name, network, images):
    extractor = build(name, features_only=True).eval()
    info = extractor.feature_info
    with torch.no_grad():
        maps = extractor(images)
    assert len(maps) == len(info.channels()) == 5
    for x, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert x.shape[1] == channels
        assert [-(-side // reduction) for side in SIZE] == list(x.shape[2:])


def test_intermediates_end_in_the_features(network, images):
    with torch.no_grad():
        final, maps = network.forward_intermediates(images)
        assert torch.equal(final, network.forward_features(images))
        only = network.forward_intermediates(images, indices=[1, 3], intermediates_only=True)
    assert torch.equal(only[1], maps[3])
    assert [x.shape[1] for x in maps] == [stage["num_chs"] for stage in network.feature_info]


def test_traced_graph_is_bit_equal(name, network, images, logits):
    nodes = {network.pretrained_cfg["classifier"]: "logits"}
    # Padding as TensorFlow's depends on the size of the image; timm keeps such layers whole, torchvision does not.
    extractor = (timm_extractor if "_tf_" in name else create_feature_extractor)(network, return_nodes=nodes)
    with torch.no_grad():
        assert torch.equal(extractor(images)["logits"], logits)


def test_state_dict_round_trip(name, network, images, logits):
    other = build(name).eval()
    other.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(other(images), logits)
        assert torch.equal(copy.deepcopy(network)(images), logits)


def test_reset_classifier(network, images):
    network = copy.deepcopy(network)
    with torch.no_grad():
        for classes in (11, 0):
            network.reset_classifier(classes)
            assert network(images).shape == (2, classes or network.head_hidden_size)
            assert network.num_classes == classes
        network.reset_classifier(0, "")
        assert network(images).ndim == 4


def test_one_channel_images(name):
    network = build(name, in_chans=1).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, *SIZE)).isfinite().all()


def test_small_stem_keeps_the_resolution(name):
    network = build(name, stem="small").eval()
    assert network.feature_info[0]["reduction"] == 1
    with torch.no_grad():
        maps = network.forward_intermediates(torch.randn(1, 3, 33, 47), intermediates_only=True)
    for x, stage in zip(maps, network.feature_info, strict=True):
        assert list(x.shape[2:]) == [-(-side // stage["reduction"]) for side in (33, 47)]


def test_the_stem_of_large_images_is_built_where_it_is_asked_for(name):
    network = build(name, stem="imagenet").eval()
    assert network.feature_info[-1]["reduction"] == 32
    with torch.no_grad():
        assert network.forward_features(torch.randn(1, 3, 64, 96)).shape[2:] == (2, 3)


SMALL, DEEP = ("_tiny", "_resnet26"), ("_resnet101", "_resnet152")
"""Endings of the names of networks that are built at once, and of those that repeat the blocks of others."""


def outline_marks(name: str) -> list[pytest.MarkDecorator]:
    """Return how the outline of a network is marked; tests of recipes count what the deep ones have."""
    if name.endswith(SMALL):
        return []
    return [pytest.mark.slow, pytest.mark.exhaustive] if name.endswith(DEEP) else [pytest.mark.slow]


@pytest.fixture(scope="module", params=[pytest.param(name, marks=outline_marks(name)) for name in NAMES])
def outline(request):
    """Every network, without numbers."""
    with torch.device("meta"):
        return build(request.param)


def test_construction_on_meta(outline):
    assert {p.device.type for p in outline.parameters()} == {"meta"}
    assert outline(torch.empty(2, 3, *SIZE, device="meta")).shape == (2, 7)


def test_the_name_says_the_depth(outline):
    depths = {"26": (1, 2, 4, 1), "38": (2, 3, 5, 2), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
    family, _, depth = outline.pretrained_cfg["architecture"].partition("_resnet")
    if depth.isdecimal():
        stages = [outline.get_submodule(f"layer{stage}") for stage in (1, 2, 3, 4)]
        blocks = [[block for name, block in stage.named_children() if name != "attention"] for stage in stages]
        assert tuple(map(len, blocks)) == depths[depth]
        replaced = [not isinstance(block.conv2, nn.Conv2d) for stage in blocks for block in stage]
        attended = {"gsa": (1, 2, 3, 4), "aa": (2, 3, 4), "expatt": (2, 3, 4)}.get(family, ())
        assert replaced == [stage in attended for stage, count in enumerate(depths[depth], 1) for _ in range(count)]


def test_every_stage_has_the_shape_that_it_says(outline):
    maps = outline.forward_intermediates(torch.empty(1, 3, *SIZE, device="meta"), intermediates_only=True)
    for x, stage in zip(maps, outline.feature_info, strict=True):
        assert x.shape[1] == stage["num_chs"]
        assert [-(-side // stage["reduction"]) for side in SIZE] == list(x.shape[2:])


def test_layer_groups_cover_every_parameter(outline):
    groups = group_parameters(outline, outline.group_matcher(coarse=False), reverse=True)
    assert set(groups) == {key for key, _ in outline.named_parameters()}
    assert len(set(groups.values())) > 4


def test_radii_and_tables_are_not_decayed(outline):
    exempt = outline.no_weight_decay() if hasattr(outline, "no_weight_decay") else set()
    attention = ("expatt", "gsa", "aa")
    wanted = {key for key, _ in outline.named_parameters() if key.endswith(("log_radius", "rel_height", "rel_width"))}
    assert bool(wanted) == outline.pretrained_cfg["architecture"].startswith(attention)
    assert wanted <= exempt


def test_the_configuration_leads_back_to_the_name(request, outline):
    assert outline.pretrained_cfg["architecture"] == request.node.callspec.params["outline"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "strides"),
    [
        ("gsa_resnet_tiny", {}, (2, 4, 8)),
        ("cram_resnet_tiny", {}, (2, 4, 8)),
        ("positionwise_resnet26", {"stem": "small"}, (2, 4, 8)),
        ("cram_tf_efficientnet_lite0", {"stem": "small"}, (4, 8, 16)),
    ],
)
def test_output_stride_counts_from_the_image_whatever_the_stem(name, options, strides):
    for stride in strides:
        network = timm.create_model(name, features_only=True, output_stride=stride, img_size=32, **options).eval()
        maps = network(torch.randn(1, 3, 32, 32))
        assert (max(network.feature_info.reduction()), maps[-1].shape[2]) == (stride, 32 // stride)
    for stride in (2 * strides[-1], 3):
        with pytest.raises(ValueError, match="output_stride"):
            timm.create_model(name, output_stride=stride, **options)
