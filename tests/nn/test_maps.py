"""The principle of the library: what forward computes is the public map applied to the values."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch.nn import functional as F

from foveate import functional as FA
from foveate.nn import (
    AttentionAugmentedConv2d,
    ExpAttConv2d,
    ExplicitAttention2d,
    GatedAttention,
    GlobalSelfAttention2d,
    PositionwiseAttention2d,
    RectangularAttention2d,
)
from tests.comparison import relative_error, shaken

SIZES = [(5, 7), (23, 29), (1, 1)]


def prepared(module, seed=0):
    return shaken(module, random.Random(seed), torch.float64).eval()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", FA.KERNELS)
def test_explicit(kernel, stride, size):
    module = prepared(ExplicitAttention2d(5, 3, kernel=kernel, stride=stride))
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    value = module.project(x)
    by_map = module.proj((value.flatten(2) @ module.attention_map(x)[0, 0].mT).view_as(value))
    assert relative_error(module(x), by_map) < 1e-12


@pytest.mark.parametrize("stride", [1, 2])
def test_explicit_at_half_resolution(stride):
    module = prepared(ExplicitAttention2d(5, 3, stride=stride, downsample=True))
    x = torch.randn(2, 5, 23, 31, dtype=torch.float64)
    pooled, size = (x, (23, 31)) if stride == 1 else (F.avg_pool2d(x, 3, 2, 1), (12, 16))
    value = F.avg_pool2d(module.value(pooled), 3, 2, 1)  # a mean of values, as they are linear in x
    by_map = module.proj((value.flatten(2) @ module.attention_map(x)[0, 0].mT).view_as(value))
    wanted = F.interpolate(by_map, size, mode="bilinear")
    assert relative_error(module(x), wanted) < 1e-12
    assert relative_error(module.forward_by_maps(x), wanted) < 1e-12


def test_augmented_convolution_shows_the_map_of_its_attention():
    module = prepared(ExpAttConv2d(5, 11, value_ratio=0.3, stride=2))
    x = torch.randn(2, 5, 5, 7, dtype=torch.float64)
    value = module.attention.project(x)
    attended = module.attention.proj((value.flatten(2) @ module.attention_map(x)[0, 0].mT).view_as(value))
    assert relative_error(module(x)[:, -3:], attended) < 1e-12
    assert relative_error(module(x)[:, :-3], module.conv(x)) < 1e-12


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "part", ["both", "content", "positional", "columns", "rows", "normalize_queries", "axial_content"]
)
def test_global_self(part, stride, size):
    ablation = {part: True} if "_" in part else {"part": part}
    module = prepared(GlobalSelfAttention2d(5, 6, num_heads=3, dim_key=6, feat_size=6, stride=stride, **ablation))
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    assert relative_error(module(x), module.forward_by_maps(x)) < 1e-12


def test_global_self_maps_add_up_to_the_output_when_nothing_is_normalised():
    """With an identity between the passes, the one N×N map per head is the whole module."""
    module = GlobalSelfAttention2d(5, 6, num_heads=3, dim_key=6, feat_size=6).double().eval()
    module.norm.eps = 0.0
    x = torch.randn(2, 5, 5, 7, dtype=torch.float64)
    both = module.attention_map(x)
    parts = module.attention_map(x, "content") + module.attention_map(x, "positional")
    assert relative_error(both, parts) < 1e-14
    applied = (both @ module.values(x)).permute(0, 1, 3, 2).reshape(2, 6, 5, 7)
    assert relative_error(module(x), applied) < 1e-12


@pytest.mark.parametrize(
    ("part", "other"),
    [("content", "positional"), ("positional", "content"), ("columns", "positional"), ("rows", "columns")],
)
def test_the_map_of_a_module_of_one_part_is_that_part(part, other):
    module = prepared(GlobalSelfAttention2d(5, 6, num_heads=3, dim_key=6, feat_size=6, part=part))
    if part == "positional":  # nothing normalised between the passes
        module.norm.reset_parameters()
        module.norm.reset_running_stats()
        module.norm.eps = 0.0
    x = torch.randn(2, 5, 5, 7, dtype=torch.float64)
    applied = (module.attention_map(x) @ module.values(x)).permute(0, 1, 3, 2).reshape(2, 6, 5, 7)
    assert relative_error(module(x), applied) < 1e-12
    assert torch.equal(module.attention_map(x), module.attention_map(x, part))
    with pytest.raises(ValueError, match=f"part must be one of both, {part}; got '{other}'"):
        module.attention_map(x, other)


@pytest.mark.parametrize(("part", "axis"), [("columns", 0), ("rows", 1)])
def test_a_single_pass_sees_its_own_line_alone(part, axis):
    module = prepared(GlobalSelfAttention2d(5, 6, num_heads=3, dim_key=6, feat_size=9, part=part))
    assert {name for name, _ in module.named_parameters()} == {"qkv.weight", ("rel_height", "rel_width")[axis]}
    maps = module.attention_map(torch.randn(2, 5, 5, 7, dtype=torch.float64)).unflatten(3, (5, 7)).unflatten(2, (5, 7))
    for a, b, p, q in itertools.product(range(5), range(7), range(5), range(7)):
        same_line = (b == q, a == p)[axis]
        assert (maps[:, :, a, b, p, q] != 0).all() if same_line else (maps[:, :, a, b, p, q] == 0).all()


def test_normalized_queries_make_means_of_the_content():
    module = prepared(GlobalSelfAttention2d(5, 6, num_heads=3, dim_key=6, feat_size=9, normalize_queries=True))
    maps = module.attention_map(torch.randn(2, 5, 5, 7, dtype=torch.float64), "content")
    assert maps.min() > 0
    assert relative_error(maps.sum(-1), torch.ones(2, 3, 35)) < 1e-14


def test_a_mode_of_training_is_left_alone_by_the_maps():
    module = GlobalSelfAttention2d(5, 6, num_heads=3, dim_key=6, feat_size=6).double()
    x = torch.randn(2, 5, 5, 7, dtype=torch.float64)
    before = module.norm.running_mean.clone()
    by_maps = module.forward_by_maps(x)
    module.observe(x)
    assert torch.equal(module.norm.running_mean, before)
    assert module.norm.num_batches_tracked == 0
    weights = module.observe(x[:, :, :1, :1]).weights  # one value of a channel in each image
    assert weights is not None
    assert relative_error(weights.attended((0, 0)), module(x[:, :, :1, :1])[..., 0, 0]) < 1e-12
    assert relative_error(module(x), by_maps) < 1e-12


@pytest.mark.parametrize("downsample", [False, True])
def test_augmented(downsample):
    module = prepared(AttentionAugmentedConv2d(5, 22, num_heads=2, value_ratio=0.3, feat_size=4, downsample=downsample))
    x = torch.randn(2, 5, 5, 7, dtype=torch.float64)
    height, width = (3, 4) if downsample else (5, 7)
    applied = (module.attention_map(x) @ module.values(x)).permute(0, 1, 3, 2).reshape(2, 6, height, width)
    attended = module.proj(applied)
    if downsample:
        attended = torch.nn.functional.interpolate(attended, (5, 7), mode="bilinear")
    assert relative_error(module(x)[:, -6:], attended) < 1e-12


@pytest.mark.parametrize("attention", [RectangularAttention2d, PositionwiseAttention2d])
def test_gates(attention):
    module = prepared(attention(5))
    x = torch.randn(2, 5, 5, 7, dtype=torch.float64)
    gate = module.attention_map(x)
    assert 0 < gate.min() < gate.max() < 1
    assert relative_error(module(x), gate * x) < 1e-14


@pytest.mark.parametrize("attention", [RectangularAttention2d, PositionwiseAttention2d])
def test_a_new_gate_lets_nearly_everything_pass(attention):
    gate = attention(64).attention_map(torch.randn(2, 64, 14, 11))
    assert gate.min() > 0.9


def test_corners_lie_where_both_edges_of_the_gate_are_half_open():
    rectangle = torch.tensor([[0.2, -0.1, 0.5, 0.3, 0.7]], dtype=torch.float64)
    for x, y in FA.rectangle_corners(rectangle)[0].tolist():
        # At a corner both factors are σ(0): look at one pixel centred there by shifting the rectangle instead.
        shifted = rectangle - torch.tensor([[x, y, 0, 0, 0]], dtype=torch.float64)
        assert FA.rectangle_map(shifted, 1, 1).item() == pytest.approx(0.25, abs=1e-12)


def test_the_two_ways_to_write_a_rectangle_draw_the_same():
    one = torch.tensor([[0.2, -0.1, 0.5, 0.3, 0.7]], dtype=torch.float64)
    for other in ([0.2, -0.1, 0.5, 0.3, 0.7 + torch.pi], [0.2, -0.1, 0.3, 0.5, 0.7 + torch.pi / 2]):
        same = FA.rectangle_map(torch.tensor([other], dtype=torch.float64), 11, 13)
        assert relative_error(same, FA.rectangle_map(one, 11, 13)) < 1e-12


class Channelwise(GatedAttention):
    """A gate for each channel, which is not of the contract."""

    def attention_map(self, x: torch.Tensor) -> torch.Tensor:
        return x.sigmoid()


def test_a_gate_of_every_channel_is_refused_when_it_is_explained() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 5\); got \(2, 3, 4, 5\)"):
        Channelwise().observe(torch.randn(2, 3, 4, 5))
