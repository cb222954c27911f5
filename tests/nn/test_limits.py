"""The limits that the mathematics has: nothing non-finite comes out at either end, in any dtype."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from foveate import functional as FA
from foveate.benchmark import peak_step_memory
from foveate.nn import (
    AttentionAugmentedConv2d,
    ExplicitAttention2d,
    GlobalSelfAttention2d,
    RectangularAttention2d,
)
from tests.comparison import relative_error
from tests.sweeps import in_turn

AUTOCAST = (None, torch.bfloat16, torch.float16)


def assert_finite(out: Tensor, *leaves: Tensor) -> None:
    assert out.isfinite().all()
    for gradient in torch.autograd.grad(out.float().square().sum(), leaves):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("autocast", AUTOCAST, ids=str)
@pytest.mark.parametrize("kernel", FA.KERNELS)
@pytest.mark.parametrize("radius", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("size", [(5, 7), (23, 29)], ids=["dense", "spectral"])
def test_radius_from_one_end_to_the_other(size, radius, kernel, autocast):
    torch.manual_seed(0)
    module = ExplicitAttention2d(3, 5, kernel=kernel, radius=radius)
    x = torch.randn(2, 3, *size, requires_grad=True)
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        out = module(x)
        attention = module.attention_map(x)
    assert_finite(out, x, *module.parameters())
    assert attention.dtype == torch.float32
    assert torch.allclose(attention.sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("kernel", FA.KERNELS)
@pytest.mark.parametrize("size", [(5, 7), (23, 29)], ids=["dense", "spectral"])
def test_a_vanishing_radius_is_the_identity_and_an_infinite_one_the_mean(kernel, size):
    value = torch.randn(2, 3, *size, dtype=torch.float64)
    none, all_of_it = (FA.explicit_attention(value, torch.tensor(r).double(), kernel) for r in (1e-6, 1e8))
    assert relative_error(none, value) < 1e-10
    assert relative_error(all_of_it, value.mean((2, 3), keepdim=True).expand_as(value)) < 1e-6


@pytest.mark.parametrize("logarithm", [-110.0, 100.0])
def test_a_logarithm_that_ran_away_gives_a_limit(logarithm):
    module = ExplicitAttention2d(3)
    nn.init.constant_(module.log_radius, logarithm)
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    assert_finite(module(x), x, *module.parameters())
    value = module.project(x)
    limit = value if logarithm < 0 else value.mean((2, 3), keepdim=True).expand_as(value)
    assert relative_error(module(x), module.proj(limit)) < 1e-5


@pytest.mark.parametrize("kernel", FA.KERNELS)
def test_a_radius_of_any_number_has_a_gradient(kernel):
    for radius in (1e-44, 1e-20, 3e38):
        r, value = torch.tensor(radius, requires_grad=True), torch.randn(1, 2, 29, 31)
        out = FA.explicit_attention(value, r, kernel)
        assert_finite(out, r)
        assert_finite(FA.explicit_attention_map(5, 7, r, kernel)[:2], r)
        limit = value if radius < 1 else value.mean((2, 3), keepdim=True).expand_as(value)
        assert relative_error(out, limit) < 1e-4


@pytest.mark.parametrize("kernel", FA.KERNELS)
def test_gradient_of_the_radius(kernel):
    value = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    radius = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, r: FA.explicit_attention(v, r, kernel), (value, radius))


@pytest.mark.slow
def test_gradient_of_the_radius_through_spectra(monkeypatch):
    monkeypatch.setattr("foveate.functional.explicit.DENSE_MAX_POSITIONS", 0)
    value = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    radius = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    for kernel in ("laplace", "cauchy", "cone"):
        assert torch.autograd.gradcheck(lambda v, r, k=kernel: FA.explicit_attention(v, r, k), (value, radius))


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "extent"), in_turn([0, 1], [2, 5, 9]))
def test_gradient_of_the_tables(axis, extent):
    query = torch.randn(2, 3, 5, 7, 2, dtype=torch.float64, requires_grad=True)
    value = torch.randn(2, 3, 5, 7, 4, dtype=torch.float64, requires_grad=True)
    table = torch.randn(2 * extent - 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: FA.axial_positional_attention(*a, axis), (query, value, table))


def test_gradient_of_the_rectangle():
    rectangle = torch.tensor([[0.13, -0.2, 0.6, 0.4, 0.3], [-0.5, 0.4, 1.1, 0.2, 2.0]], dtype=torch.float64)
    rectangle.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: FA.rectangle_map(r, 5, 7, sharpness=7.0), (rectangle,))


@pytest.mark.parametrize("autocast", AUTOCAST, ids=str)
@pytest.mark.parametrize(
    "rectangle",
    [
        pytest.param([0, 0, 0, 0, 0], id="of zero size"),
        pytest.param([50, -50, 0.1, 0.1, 1], id="outside the map"),
        pytest.param([0, 0, 1e4, 1e4, 0.5], id="far larger than the map"),
        pytest.param([1, 1, 1e-6, 1e6, -1e4], id="a line, turned often"),
    ],
)
def test_rectangles_at_the_extremes(rectangle, autocast):
    numbers = torch.tensor([rectangle], dtype=torch.float32, requires_grad=True)
    x = torch.randn(1, 3, 5, 7)
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        gate = FA.rectangle_map(numbers, 5, 7, sharpness=10.0)
    assert gate.dtype == torch.float32
    assert 0 <= gate.min() <= gate.max() <= 1
    assert_finite(gate * x, numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_logits_of_ten_thousand(dtype):
    torch.manual_seed(0)
    sign = torch.randn(2, 2, 5, 7, 3).sign()
    query = torch.randn(2, 2, 5, 7, 3).to(dtype).requires_grad_()
    key = (1e4 * sign).to(dtype).requires_grad_()
    value = torch.randn(2, 2, 5, 7, 4).to(dtype).requires_grad_()
    assert_finite(FA.content_attention(query, key, value), query, key, value)
    rows, columns = (torch.randn(9, 3).to(dtype).requires_grad_() for _ in range(2))
    assert_finite(FA.augmented_attention(query, key, value, rows, columns), query, key, value, rows, columns)
    logits = (1e4 * torch.randn(2, 1, 5, 7).sign()).to(dtype).requires_grad_()
    assert_finite(FA.positionwise_map(logits), logits)


@pytest.mark.parametrize("autocast", AUTOCAST, ids=str)
@pytest.mark.parametrize("scale", [1e2, 1e4])
@pytest.mark.parametrize(
    "make",
    [
        lambda: GlobalSelfAttention2d(16, feat_size=5),
        lambda: AttentionAugmentedConv2d(16, 88, feat_size=5),
    ],
    ids=["global-self", "augmented"],
)
def test_activations_of_ten_thousand(make, scale, autocast):
    torch.manual_seed(0)
    module = make()
    x = (scale * torch.randn(2, 16, 5, 7)).requires_grad_()
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        out = nn.BatchNorm2d(module(x).shape[1])(module(x).float())  # the block that it sits in normalises next
    assert_finite(out, x, *module.parameters())


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("autocast", AUTOCAST[1:], ids=str)
def test_gradients_within_autocast_are_those_outside(autocast: torch.dtype, fused: bool | None) -> None:
    torch.manual_seed(0)
    module = GlobalSelfAttention2d(16, feat_size=5, fused=fused)
    x = torch.randn(2, 16, 5, 7, requires_grad=True)
    with torch.autocast("cpu", autocast):
        loss = module(x).float().square().sum()
        tables = module.rel_height, module.rel_width
        inside = torch.autograd.grad(loss, tables, retain_graph=True)
        inside += torch.autograd.grad(loss, tables, create_graph=True)  # by operators that can be differentiated
    outside = torch.autograd.grad(loss, tables, retain_graph=True)
    outside += torch.autograd.grad(loss, tables, create_graph=True)
    for a, b in zip(inside, outside, strict=True):
        assert relative_error(a, b) < 1e-5


def test_a_head_that_predicts_huge_numbers_stays_finite():
    module = RectangularAttention2d(3)
    nn.init.constant_(module.readout.weight, 1e4)
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    assert_finite(module(x), x, *module.parameters())


def test_a_flat_map_predicts_the_rectangle_of_no_information():
    """Zeros carry no place: all score maps are uniform, so the rectangle is that of the biases alone."""
    module = RectangularAttention2d(3)
    rectangle = module.rectangle(torch.zeros(1, 3, 5, 7))
    assert torch.allclose(rectangle, torch.tensor([[0, 0, 1.6, 1.6, 0]]), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "size", "gibibytes"),
    [
        (ExplicitAttention2d(16), (1, 16, 1024, 1024), 1.0),
        pytest.param(ExplicitAttention2d(16), (1, 16, 2048, 2048), 4.0, marks=pytest.mark.exhaustive),
        (GlobalSelfAttention2d(64, num_heads=8, feat_size=512), (1, 64, 512, 512), 6.0),  # its scores: 8 GiB
    ],
    ids=["explicit-1024", "explicit-2048", "global-self-512"],
)
def test_a_training_step_on_a_very_large_map_fits_in_memory(module, size, gibibytes):
    x = torch.randn(size).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert peak_step_memory(module, x) < gibibytes * 2**30


def test_tables_of_another_width_than_the_queries_are_refused():
    query, key, table = torch.randn(2, 4, 3, 5, 8), torch.randn(2, 4, 3, 5, 8), torch.randn(9, 8)
    with pytest.raises(ValueError, match="table_columns"):
        FA.augmented_attention_map(query, key, table, torch.randn(9, 7))
