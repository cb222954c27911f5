"""The Laplace kernel of the city-block distance: values, gradients, factors, cost and limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate import functional as FA
from tests.comparison import relative_error
from tests.reference import attention as reference
from tests.reference.grids import from_grid, to_grid

pytestmark = pytest.mark.usefixtures("shapes")

KERNEL = "laplace_l1"


def kronecker(size: tuple[int, int], radius: float, kernel: str) -> Tensor:
    """Return the product of the maps of a column and of a row, formed as those of one-pixel-wide images."""
    r = torch.tensor(radius, dtype=torch.float64)
    return torch.kron(
        FA.explicit_attention_map(size[0], 1, r, kernel), FA.explicit_attention_map(1, size[1], r, kernel)
    )


@pytest.mark.parametrize("size", [(5, 7), (1, 11), (13, 2)], ids=str)
@pytest.mark.parametrize("radius", [0.3, 1.7, 20.0])
def test_values_and_gradients_are_those_of_loops(radius: float, size: tuple[int, int]) -> None:
    value = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    r = torch.tensor(radius, dtype=torch.float64, requires_grad=True)
    wanted = from_grid(reference.explicit(to_grid(value), r, KERNEL))
    cotangent = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, [value, r], cotangent)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = FA.explicit_attention(value.contiguous(memory_format=layout), r, KERNEL)
        assert relative_error(got, wanted) < 1e-13
        for ours, theirs in zip(torch.autograd.grad(got, [value, r], cotangent), gradients, strict=True):
            assert relative_error(ours, theirs) < 1e-12
    with foveate.plain_operators():
        assert relative_error(FA.explicit_attention(value, r, KERNEL), wanted) < 1e-13


@pytest.mark.parametrize("radius", [0.3, 1.7, 20.0])
def test_its_map_is_exactly_that_of_its_factors_which_that_of_the_euclidean_distance_is_not(radius: float) -> None:
    size, r = (5, 7), torch.tensor(radius, dtype=torch.float64)
    for kernel, line in ((KERNEL, FA.laplace_line_map), ("gaussian", FA.gaussian_line_map)):
        whole = FA.explicit_attention_map(*size, r, kernel)
        assert relative_error(kronecker(size, radius, kernel), whole) < 1e-14
        assert relative_error(torch.kron(line(5, r), line(7, r)), whole) < 1e-14
    assert relative_error(kronecker(size, radius, "laplace"), FA.explicit_attention_map(*size, r, "laplace")) > 1e-3


def test_it_costs_two_products_with_the_maps_of_lines() -> None:
    value, radius = torch.randn(2, 3, 31, 37), torch.tensor(2.0)
    with FlopCounterMode(display=False) as counter:
        FA.explicit_attention(value, radius, KERNEL)
    assert counter.get_total_flops() == 2 * 2 * 3 * 31 * 37 * (31 + 37)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("radius", [1e-13, 1e-6, 1e-3, 1e3, 1e6, 1e13])
def test_limits(radius: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 3, 23, 29, generator=generator).to(dtype).requires_grad_()
    r = torch.tensor(radius, requires_grad=True)
    out = FA.explicit_attention(value, r, KERNEL)
    if radius != 1e3:  # still on the way
        limit = value if radius < 1 else value.float().mean((2, 3), keepdim=True).expand_as(value)
        assert relative_error(out, limit.to(dtype)) < (1e-3 if dtype == torch.float32 else 1e-2)
    for gradient in torch.autograd.grad(out.float().square().sum(), [value, r]):
        assert gradient.isfinite().all()
