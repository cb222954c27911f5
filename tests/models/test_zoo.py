"""The published numbers, compilation and export of a network of each family, and options."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import BlurPool2d

import foveate
from foveate.benchmark.cost import network_cost
from foveate.models.tables import relative_tables, resize_relative_tables
from tests.comparison import relative_error

PUBLISHED = [
    ("resnet50", 25.56, 0.01, 8.2, 0.05),
    ("conv_resnet50", 25.56, 0.01, 8.2, 0.05),
    ("gsa_resnet50", 18.05, 0.05, 7.2, 0.1),
    ("aa_resnet50", 25.8, 0.05, 8.4, 0.1),
    ("expatt_resnet50", 24.59, 0.05, 7.95, 0.05),
    ("expatt_resnet152", 57.66, 0.1, 22.2, 0.2),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters", "slack", "gflops", "slack_gflops"), PUBLISHED)
def test_costs(name, parameters, slack, gflops, slack_gflops):
    cost = network_cost(timm.create_model(name))
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=slack)
    assert cost.flops / 1e9 == pytest.approx(gflops, abs=slack_gflops)


@pytest.mark.slow
def test_expatt_saves_the_published_share_of_aa():
    with torch.device("meta"):
        ours, theirs = (
            sum(p.numel() for p in timm.create_model(name).parameters())
            for name in ("expatt_resnet152", "aa_resnet152")
        )
    assert 100 * (ours / theirs - 1) == pytest.approx(-6.4, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["resnet50", "efficientnet_b0"])
@pytest.mark.parametrize("kind", ["cram", "positionwise"])
def test_inserted_heads_cost_at_most_one_percent(kind, base):
    alone, together = (network_cost(timm.create_model(name)) for name in (base, f"{kind}_{base}"))
    assert alone.parameters < together.parameters <= 1.01 * alone.parameters
    assert alone.flops < together.flops <= 1.01 * alone.flops


@pytest.mark.slow
@pytest.mark.parametrize("family", ["conv", "expatt", "gsa", "aa", "cram", "positionwise"])
def test_one_network_of_each_family_compiles_and_exports(family):
    """Without a break in the graph; what code becomes of it, the tests of each module see."""
    torch.manual_seed(0)
    model = timm.create_model(f"{family}_resnet_tiny", num_classes=7).eval()
    image = torch.randn(2, 3, 29, 37)
    backend = "inductor" if family == "positionwise" else "aot_eager"
    with torch.no_grad():
        eager = model(image)
        assert relative_error(torch.compile(model, fullgraph=True, backend=backend)(image), eager) < 1e-5
        assert relative_error(torch.export.export(model, (image,)).module()(image), eager) < 1e-5


def test_options_reach_the_attention():
    model = timm.create_model("expatt_resnet_tiny", kernel="cauchy", radius=3.5, value_ratio=0.3)
    attention = model.layer3[0].conv2.attention
    assert (attention.kernel, attention.initial_radius, attention.dim_out) == ("cauchy", 3.5, 14)
    assert attention.radius.item() == pytest.approx(3.5, rel=1e-6)
    assert timm.create_model("gsa_resnet_tiny", num_heads=1).layer1[0].conv2.num_heads == 1
    full, half = (timm.create_model("aa_resnet_tiny", half_resolution=on).layer2[0].conv2 for on in (False, True))
    assert (full.downsample, full.feat_size) == (False, (16, 16))
    assert (half.downsample, half.feat_size) == (True, (8, 8))
    assert timm.create_model("cram_resnet_tiny", at=1, sharpness=4.0).layer1.attention.sharpness == 4.0


def test_weights_made_on_meta_are_drawn_as_the_modules_draw_them():
    with torch.device("meta"):
        model = timm.create_model("gsa_resnet_tiny", num_classes=7)
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.Linear):
            module.reset_parameters()
    torch.manual_seed(0)
    model.init_weights()
    attention = model.layer2[0].conv2
    assert attention.qkv.weight.std().item() == pytest.approx(attention.dim**-0.5, rel=0.1)
    assert attention.rel_height.std().item() == pytest.approx((24 * 32) ** -0.5, rel=0.1)  # one head of 24 channels
    assert model(torch.randn(2, 3, 29, 37)).isfinite().all()


def test_table_extents_follow_the_image_size():
    sizes = [
        block.conv2.feat_size
        for stage in ("layer1", "layer2", "layer3", "layer4")
        for block in timm.create_model("gsa_resnet26", img_size=(160, 223)).get_submodule(stage)
    ]
    # A block that strides attends at the resolution before its pooling.
    assert sizes == [(40, 56), (40, 56), (20, 28), (20, 28), (10, 14), (10, 14), (10, 14), (10, 14)]


def test_resized_tables_see_the_whole_of_a_larger_image():
    model = foveate.resize_relative_tables(timm.create_model("gsa_resnet_tiny", num_classes=7), (40, 72))
    assert model.layer1[0].conv2.feat_size == (40, 72)
    assert model.layer4[0].conv2.feat_size == (10, 18)
    with pytest.raises(ValueError, match="has no relative tables"):
        foveate.resize_relative_tables(timm.create_model("conv_resnet_tiny"), 64)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gsa_resnet_tiny", {"stem": "tiny"}, "stem must be one of imagenet, small; got 'tiny'"),
        ("cram_resnet50", {"stem": "tiny"}, "stem must be one of imagenet, small; got 'tiny'"),
        ("cram_resnet50", {"stem": "small", "pretrained": True}, "has no pretrained weights"),
        ("gsa_resnet_tiny", {"img_size": 0}, "img_size must be at least 1"),
        ("expatt_resnet_tiny", {"cardinality": 2}, "cardinality=2 has no meaning for attention"),
        ("gsa_resnet_tiny", {"num_heads": 3}, "num_heads=3 does not divide dim_out=8"),
        ("expatt_resnet_tiny", {"kernel": "box"}, "kernel must be one of gaussian"),
        ("expatt_resnet_tiny", {"value_ratio": 0.01}, "leaves none for attention"),
        ("cram_resnet_tiny", {"at": 7}, "at=7 is no stage"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model(name, **options)


@pytest.mark.parametrize("layer", [None, BlurPool2d])
def test_tables_fit_the_maps_also_where_a_pooling_strides(layer: type | None) -> None:
    """With ``aa_layer`` the convolutions, and so what replaces them, do not stride: the pooling behind them does."""
    for family in ("gsa", "aa"):
        model = timm.create_model(f"{family}_resnet26", img_size=(96, 64), aa_layer=layer).eval()
        made = {name: module.feat_size for name, module in relative_tables(model).items()}
        resize_relative_tables(model, (96, 64))
        assert {name: module.feat_size for name, module in relative_tables(model).items()} == made
