"""The attention of all positions in a box, against a loop over the whole map in float64."""

from __future__ import annotations

import math
import random

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from foveate.explain import AttentionRecord, attention_records, overlay
from foveate.nn import AttentionAugmentedConv2d, ExplicitAttention2d, GlobalSelfAttention2d, RectangularAttention2d
from tests.comparison import relative_error, shaken

HEIGHT, WIDTH = 7, 11
MODULES = {
    "gsa": lambda: GlobalSelfAttention2d(6, 8, num_heads=2, dim_key=6, feat_size=(7, 11)),
    "expatt": lambda: ExplicitAttention2d(6, 5, radius=1.7),
    "aa": lambda: AttentionAugmentedConv2d(6, 40, num_heads=2, feat_size=(7, 11)),
}


def recorded(module: nn.Module, x: Tensor) -> AttentionRecord:
    (record,) = attention_records(module, x)
    return record


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    "box", [(1.0, 2.0, 4.0, 6.0), (0.0, 0.0, 11.0, 7.0), (2.4, 3.6, 7.5, 3.9), (10.6, 6.6, 11.0, 7.0)]
)
def test_it_is_the_mean_over_the_positions(name: str, box: tuple[float, float, float, float]) -> None:
    module = shaken(MODULES[name](), random.Random(0), torch.float64).eval()
    x = torch.randn(2, 6, HEIGHT, WIDTH, dtype=torch.float64)
    record = recorded(module, x).queried_box(box)
    height, width = record.map.shape[1:]
    middles = [
        ((row + 0.5) * HEIGHT / height, (column + 0.5) * WIDTH / width)
        for row in range(height)
        for column in range(width)
    ]
    inside = [i for i, (y, x) in enumerate(middles) if box[1] <= y < box[3] and box[0] <= x < box[2]]
    if not inside:
        row = min(math.floor((box[1] + box[3]) / 2 * height / HEIGHT), height - 1)
        inside = [row * width + column for column in range(width) if box[0] <= (column + 0.5) * WIDTH / width < box[2]]
        inside = inside or [row * width + math.floor((box[0] + box[2]) / 2 * width / WIDTH)]
    weights = torch.stack(
        [
            recorded(module, x).attention_from((int(y), int(x_))).abs().sum(1).flatten(1)
            for y, x_ in (middles[i] for i in inside)
        ]
    )
    total = weights.sum(0)
    expected = height * width * total / total.sum(1, keepdim=True)
    assert relative_error(record.map.flatten(1).double(), expected) < 1e-6
    assert record.box == box
    assert record.query is None


def test_parts_and_heads_are_apart() -> None:
    module = shaken(MODULES["gsa"](), random.Random(0), torch.float64).eval()
    record = recorded(module, torch.randn(1, 6, HEIGHT, WIDTH, dtype=torch.float64))
    box = (3.0, 1.0, 4.0, 2.0)  # of a single position
    for part in ("content", "positional"):
        for head in (0, 1):
            alone = record.queried((1, 3), part=part, head=head)
            assert torch.allclose(record.queried_box(box, part=part, head=head).map, alone.map)
    assert record.queried_box(box).queried((1, 3)).box is None


def test_its_positions_are_outlined() -> None:
    record = recorded(MODULES["gsa"]().eval(), torch.randn(1, 6, HEIGHT, WIDTH)).queried_box((2, 1, 6, 4))
    flat = overlay(Image.new("RGB", (WIDTH, HEIGHT)), record, zoom=32)
    white = [(x, y) for x in range(flat.width) for y in range(flat.height) if flat.getpixel((x, y)) == (255, 255, 255)]
    columns, rows = zip(*white, strict=True)
    edges = [min(columns), max(columns), min(rows), max(rows)]
    assert edges == pytest.approx([2 * 32, 6 * 32, 1 * 32, 4 * 32], abs=3)


@pytest.mark.parametrize(
    "box", [(0, 0, 12, 3), (5, 5, 5, 6), (6, 2, 4, 5), (-1, 0, 3, 3), (0, 0, 3), (0, 0, float("nan"), 3), "box"]
)
def test_bad_boxes_are_named(box: tuple[float, ...]) -> None:
    record = recorded(MODULES["gsa"]().eval(), torch.randn(1, 6, HEIGHT, WIDTH))
    with pytest.raises(ValueError, match="box"):
        record.queried_box(box)


def test_gates_have_no_box() -> None:
    record = recorded(RectangularAttention2d(6).eval(), torch.randn(1, 6, HEIGHT, WIDTH))
    with pytest.raises(ValueError, match="one map"):
        record.queried_box((0, 0, 3, 3))
