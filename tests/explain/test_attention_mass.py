"""Attention that stays inside of a region, against plain loops over positions and pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch

from foveate.explain import AttentionRecord, attention_records, energy_inside, mass_inside, region_shares

FAMILIES = ("gsa", "expatt", "aa", "cram", "positionwise")


def observed(family: str, size: tuple[int, int]) -> tuple[AttentionRecord, ...]:
    torch.manual_seed(0)
    network = timm.create_model(f"{family}_resnet_tiny", img_size=size)
    return tuple(attention_records(network, torch.randn(2, 3, *size)))


def slow_shares(regions: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Add up the area that each pixel and each position have in common."""
    number, height, width = regions.shape
    found = np.zeros((number, *size))
    for row in range(size[0]):
        for column in range(size[1]):
            for y in range(height):
                for x in range(width):
                    down = min((row + 1) * height / size[0], y + 1) - max(row * height / size[0], y)
                    across = min((column + 1) * width / size[1], x + 1) - max(column * width / size[1], x)
                    if down > 0 and across > 0:
                        found[:, row, column] += regions[:, y, x] * down * across
    return found * size[0] * size[1] / (height * width)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 11), (11, 4)])
def test_shares_of_positions(size: tuple[int, int]) -> None:
    regions = np.random.default_rng(0).integers(0, 2, (3, 7, 11)).astype(float)
    found = region_shares(torch.from_numpy(regions), size)
    assert np.allclose(found, slow_shares(regions, size), atol=1e-13)
    assert np.allclose(found.mean((1, 2)), regions.mean((1, 2)), atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_mass_equals_a_plain_loop(family: str) -> None:
    size = (20, 28)
    regions = np.random.default_rng(1).random((3, *size)).round(1)
    for record in observed(family, size)[-2:]:
        height, width = record.map.shape[1:]
        cover = slow_shares(regions, (height, width))
        positions = [(y, x) for y in range(height) for x in range(width)]
        for image in range(2):
            expected = []
            for shares in cover:
                inside = total = 0.0
                if record.weights is None:
                    for y, x in positions:
                        inside += float(record.map[image, y, x]) * shares[y, x]
                        total += float(record.map[image, y, x])
                else:
                    for y, x in positions:
                        taken = record.weights.taken_by((y, x))[image].double().abs().sum(0).numpy()
                        inside += shares[y, x] * float((taken * shares).sum())
                        total += shares[y, x] * float(taken.sum())
                expected.append(inside / total)
            assert np.allclose(mass_inside(record, torch.from_numpy(regions), image=image), expected, atol=1e-6)


def test_parts_of_global_self_attention_differ() -> None:
    record = observed("gsa", (16, 16))[-1]
    region = torch.zeros(1, 16, 16)
    region[:, 3:11, 2:7] = 1
    parts = [float(mass_inside(record, region, part=part)) for part in ("both", "content", "positional")]
    assert len(set(parts)) == 3
    assert all(0 < part < 1 for part in parts)


def test_a_gate_and_a_box_are_the_energy_based_pointing_game() -> None:
    (record,) = observed("cram", (32, 32))
    region = torch.zeros(1, 32, 32)
    region[:, 8:24, 4:20] = 1
    expected = energy_inside(record.map[:1].numpy(), [[1, 2, 5, 6]])
    assert np.allclose(mass_inside(record, region), expected, atol=1e-12)


def test_what_is_uniform_and_what_is_empty() -> None:
    (record,) = observed("cram", (32, 32))
    flat = AttentionRecord("flat", "any", torch.zeros(1, 8, 8), record.scale, (32, 32))
    region = torch.zeros(2, 32, 32)
    region[0, :5] = 1
    found = mass_inside(flat, region)
    assert float(found[0]) == pytest.approx(5 / 32, abs=1e-12)
    assert math.isnan(float(found[1]))
    assert mass_inside(record, torch.ones(1, 32, 32)).item() == pytest.approx(1, abs=1e-12)
    assert mass_inside(record, torch.zeros(0, 32, 32)).shape == (0,)


def test_what_is_attended_to_in_the_padding_does_not_count() -> None:
    """A view of the left three quarters, cut through a position."""
    record = observed("gsa", (20, 28))[-1]
    view, region = torch.zeros(20, 28), torch.zeros(1, 20, 28)
    view[:, :21], region[:, 4:9, 3:14] = 1, 1
    size = tuple(record.map.shape[1:])
    cover, seen = slow_shares(np.stack([region[0], view]), size)
    weights = record.weights.rows(slice(0, 1), slice(None), slice(None))[0].abs().sum(0).double().numpy()
    taken = np.einsum("ij,ijyx->yx", cover, weights)
    expected = (taken * cover).sum() / (taken * seen).sum()
    assert float(mass_inside(record, region, view=view)) == pytest.approx(expected, abs=1e-6)
    flat = AttentionRecord("flat", "any", torch.ones(1, *size), record.scale, (20, 28))
    assert float(mass_inside(flat, region, view=view)) == pytest.approx(5 * 11 / (20 * 21), abs=1e-12)


@pytest.mark.parametrize("regions", [torch.zeros(1, 8, 8), torch.full((1, 32, 32), 1.5), torch.zeros(1, 32, 32) - 1])
def test_other_regions_are_refused(regions: torch.Tensor) -> None:
    (record,) = observed("cram", (32, 32))
    with pytest.raises(ValueError, match="regions must be"):
        mass_inside(record, regions)


def test_images_and_parts_that_a_gate_does_not_have() -> None:
    (record,) = attention_records(timm.create_model("cram_resnet_tiny"), torch.randn(2, 3, 32, 32))
    whole = torch.ones(1, 32, 32)
    for change in ({"image": -1}, {"image": 2}, {"part": "content"}):
        with pytest.raises(ValueError, match=next(iter(change))):
            mass_inside(record, whole, **change)
