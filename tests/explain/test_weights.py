"""The weights that are explained are those that were applied: from any pixel, to any pixel, by part and by head."""

from __future__ import annotations

import random

import pytest
import timm
import torch
from torch import nn

from foveate.explain import AttentionRecord, attention_records
from foveate.explain.records import GIVEN, QUERIED, RECEIVED
from foveate.functional import KERNELS
from foveate.nn import (
    AttentionAugmentedConv2d,
    ExplicitAttention2d,
    GlobalSelfAttention2d,
    PairwiseAttention,
    RectangularAttention2d,
)
from foveate.nn.weights import FormedWeights
from tests.comparison import relative_error, shaken

HEIGHT, WIDTH = 7, 11


def prepared(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    return shaken(module, random.Random(0), dtype).eval()


def recorded(module: nn.Module, x: torch.Tensor) -> AttentionRecord:
    (record,) = attention_records(module, x)
    return record


def every_position(record: AttentionRecord) -> list[tuple[int, int]]:
    return [(row, column) for row in range(record.map.shape[1]) for column in range(record.map.shape[2])]


@pytest.mark.parametrize(
    "part", ["both", "content", "positional", "columns", "rows", "normalize_queries", "axial_content"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_global_self_attention_is_its_weights_applied_to_its_values(dtype: torch.dtype, part: str) -> None:
    """Position by position, the normalisation between the two passes included."""
    ablation = {part: True} if "_" in part else {"part": part}
    module = prepared(GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=(4, 13), **ablation), dtype)
    x = torch.randn(2, 6, HEIGHT, WIDTH, dtype=dtype)
    record = recorded(module, x)
    output = module(x)
    for row, column in every_position(record):
        attended = record.weights.attended((row, column))
        assert relative_error(attended, output[:, :, row, column]) < (1e-5 if dtype == torch.float32 else 1e-12)


def test_the_weights_of_a_head_are_the_mean_over_its_channels() -> None:
    """``C + g_c P`` for channel ``c``: with the values of one channel at a time, what the module puts out."""
    module = prepared(GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=9))
    x = torch.randn(1, 6, HEIGHT, WIDTH, dtype=torch.float64)
    record = recorded(module, x)
    norm = module.norm
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    content, positional = (module.attention_map(x, part).detach() for part in ("content", "positional"))
    for head in range(2):
        channels = [content[0, head] + gain[4 * head + c] * positional[0, head] for c in range(4)]
        mean = sum(channels) / 4
        for row, column in every_position(record):
            i = row * WIDTH + column
            assert relative_error(record.attention_from((row, column))[0, head].flatten(), mean[i]) < 1e-12
            assert relative_error(record.attention_to((row, column))[0, head].flatten(), mean[:, i]) < 1e-12


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stride", [1, 2])
def test_explicit_attention_is_its_weights_applied_to_its_values(kernel: str, stride: int) -> None:
    module = prepared(ExplicitAttention2d(5, 3, kernel=kernel, radius=1.7, stride=stride), torch.float32)
    x = torch.randn(2, 5, HEIGHT, WIDTH)
    record = recorded(module, x)
    output = module(x)
    for row, column in every_position(record):
        attended = module.proj(record.weights.attended((row, column))[:, :, None, None])
        assert relative_error(attended[:, :, 0, 0], output[:, :, row, column]) < 1e-5


@pytest.mark.parametrize("downsample", [False, True])
def test_augmented_attention_is_its_weights_applied_to_its_values(downsample: bool) -> None:
    module = prepared(AttentionAugmentedConv2d(5, 22, num_heads=2, value_ratio=0.3, feat_size=4, downsample=downsample))
    x = torch.randn(2, 5, HEIGHT, WIDTH, dtype=torch.float64)
    record = recorded(module, x)
    attended = torch.stack([record.weights.attended(position) for position in every_position(record)], dim=2)
    attended = module.proj(attended.unflatten(2, record.map.shape[1:]))
    if downsample:
        attended = nn.functional.interpolate(attended, (HEIGHT, WIDTH), mode="bilinear")
    assert relative_error(attended, module(x)[:, -6:]) < 1e-12


KINDS = {
    "gsa": lambda: GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=(4, 13)),
    "content": lambda: GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=(4, 13), part="content"),
    "positional": lambda: GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=(4, 13), part="positional"),
    "columns": lambda: GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=(4, 13), part="columns"),
    "rows": lambda: GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=(4, 13), part="rows"),
    "normalized": lambda: GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=9, normalize_queries=True),
    "axial": lambda: GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=9, axial_content=True),
    "aa": lambda: AttentionAugmentedConv2d(6, 22, num_heads=2, value_ratio=0.3, feat_size=4),
    "expatt": lambda: ExplicitAttention2d(6, 5, kernel="cauchy"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_columns_are_of_one_map(kind: str) -> None:
    record = recorded(prepared(KINDS[kind]()), torch.randn(2, 6, HEIGHT, WIDTH, dtype=torch.float64))
    size = (HEIGHT, WIDTH)
    rows = torch.stack([record.attention_from(place) for place in every_position(record)], 2).unflatten(2, size)
    columns = torch.stack([record.attention_to(place) for place in every_position(record)], -1).unflatten(-1, size)
    torch.testing.assert_close(rows, columns, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(record.weights.received(), rows.abs().sum((1, 2, 3)), rtol=1e-12, atol=1e-12)


def test_parts_and_heads_add_up() -> None:
    module = prepared(KINDS["gsa"]())
    record = recorded(module, torch.randn(2, 6, HEIGHT, WIDTH, dtype=torch.float64))
    for of in (record.attention_from, record.attention_to):
        both, content, positional = (of((3, 4), part) for part in ("both", "content", "positional"))
        torch.testing.assert_close(both, content + positional)
        assert (both < 0).any()
        assert (both > 0).any()
    of_heads = [record.weights.received("content", head) for head in range(2)]
    torch.testing.assert_close(record.weights.received("content"), of_heads[0] + of_heads[1])


def test_a_pixel_of_the_image_is_that_of_the_position_that_covers_it() -> None:
    """A 3-row, 5-column map of a 21×20 image: positions are 7 pixels high and 4 wide."""
    network = nn.Sequential(nn.AvgPool2d((7, 4)), prepared(KINDS["gsa"](), torch.float32))
    record = recorded(network, torch.randn(1, 6, 21, 20))
    for query, position in {(0, 0): (0, 0), (6, 3): (0, 0), (7, 4): (1, 1), (20, 19): (2, 4), (13, 11): (1, 2)}.items():
        assert record.position(query) == position
        assert torch.equal(record.attention_from(query), record.weights.taken_by(position))


def test_queried_maps_are_shares_of_the_magnitudes() -> None:
    record = recorded(prepared(KINDS["gsa"]()), torch.randn(2, 6, HEIGHT, WIDTH, dtype=torch.float64))
    for direction, of, scale in (
        ("from", record.attention_from, QUERIED),
        ("to", record.attention_to, GIVEN),
    ):
        queried = record.queried((2, 9), direction=direction)
        sums = of((2, 9)).abs().sum(1)
        torch.testing.assert_close(queried.map.double(), sums / sums.mean((1, 2), keepdim=True), rtol=1e-5, atol=1e-6)
        assert (queried.query, queried.scale) == ((2, 9), scale)
    one = record.queried((2, 9), part="content", head=1)
    sums = record.attention_from((2, 9), "content")[:, 1].abs()
    torch.testing.assert_close(one.map.double(), sums / sums.mean((1, 2), keepdim=True), rtol=1e-5, atol=1e-6)
    assert one.scale.meaning.startswith("content part, head 1: ")
    assert torch.equal(record.queried(None).map, record.map)
    assert record.queried(None).scale == RECEIVED


def test_the_weights_are_those_of_the_pass_whatever_becomes_of_the_network() -> None:
    for name in ("gsa_resnet_tiny", "expatt_resnet_tiny", "aa_resnet_tiny"):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=10)
        records = attention_records(model, torch.randn(1, 3, 32, 32))
        before = [record.attention_from((9, 20)) for record in records]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        after = [record.attention_from((9, 20)) for record in records]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), name


@pytest.mark.slow
def test_maps_larger_than_what_is_formed_at_a_time() -> None:
    """70×61 positions and two heads: 36 million weights, none of which is held for long."""
    torch.manual_seed(0)
    module = prepared(GlobalSelfAttention2d(4, 4, num_heads=2, dim_key=4, feat_size=5), torch.float32)
    x = torch.randn(1, 4, 70, 61)
    record = recorded(module, x)
    assert (record.map.mean() - 1).abs() < 1e-4
    place = (69, 60)
    total = sum(record.attention_to((row, 60))[0, 1].abs().sum() for row in (0, 69))
    expected = record.weights.received(head=1)[0, [0, 69], 60].sum()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)
    assert relative_error(record.weights.attended(place), module(x)[:, :, 69, 60]) < 1e-5


def test_whole_maps_are_formed_one_after_the_other() -> None:
    values, formed = torch.randn(5, 1, 2, 3, 4), []

    def form(images: slice) -> torch.Tensor:
        formed.append(range(5)[images])
        return torch.arange(5.0)[images, None, None, None].expand(-1, 1, 6, 6)

    weights = FormedWeights(values, form)
    assert torch.equal(weights.taken_by((1, 2))[:, 0, 0, 0], torch.arange(5.0))
    assert {len(images) for images in formed} == {1}


class Uniform(PairwiseAttention):
    """A module of somebody else's with the public contract."""

    def values(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2)[:, None].mT

    def attention_map(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[2] * x.shape[3]
        return torch.full((1, 1, n, n), 1 / n)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True).expand_as(x)


def test_modules_of_others_are_explained_too() -> None:
    x = torch.randn(2, 3, HEIGHT, WIDTH)
    record = recorded(Uniform(), x)
    torch.testing.assert_close(record.map, torch.ones(2, HEIGHT, WIDTH))
    torch.testing.assert_close(record.weights.attended((1, 2)), x.mean((2, 3)))


def test_bad_input_is_refused() -> None:
    x = torch.randn(2, 6, HEIGHT, WIDTH)
    gsa, expatt = recorded(KINDS["gsa"](), x), recorded(KINDS["expatt"](), x)
    with pytest.raises(ValueError, match=r"query=\(7, 0\) lies outside of images of 7×11"):
        gsa.attention_from((7, 0))
    with pytest.raises(ValueError, match="part must be one of both, content, positional; got 'contents'"):
        gsa.attention_to((0, 0), "contents")
    with pytest.raises(ValueError, match="part must be one of both; got 'content'"):
        expatt.attention_from((0, 0), "content")
    with pytest.raises(ValueError, match="head must be below 2"):
        gsa.queried((0, 0), head=2)
    with pytest.raises(ValueError, match="direction must be one of from, to"):
        gsa.queried((0, 0), direction="at")
    with pytest.raises(ValueError, match=r"position=\(0, 11\) lies outside of a map of 7×11"):
        gsa.weights.taken_by((0, 11))
    with pytest.raises(ValueError, match="head must be below 2; got 2"):
        gsa.weights.received(head=2)
    with pytest.raises(ValueError, match="rows must follow one another"):
        gsa.weights.received(rows=slice(0, None, 2))
    with pytest.raises(ValueError, match="image must be below 2; got 5"):
        gsa.weights.taken_by_regions(torch.ones(1, HEIGHT, WIDTH), image=5)
    with pytest.raises(ValueError, match=r"regions must be \(regions, 7, 11\)"):
        gsa.weights.taken_by_regions(torch.ones(1, HEIGHT + 1, WIDTH))
    x[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        recorded(KINDS["gsa"](), x)
    x = torch.randn(2, 6, HEIGHT, WIDTH)
    assert KINDS["gsa"]().weights(x[:0]).images == 0
    gate = recorded(RectangularAttention2d(6), x)
    with pytest.raises(ValueError, match=r"RectangularAttention2d.* has one map for all positions"):
        gate.attention_from((0, 0))
    with pytest.raises(ValueError, match="mode must be one of nearest, bilinear"):
        gate.resampled("cubic")
