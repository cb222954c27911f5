"""Rows and columns of the maps, formed alone, against the whole maps."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from foveate import functional as FA
from tests.comparison import relative_error

pytestmark = pytest.mark.usefixtures("shapes")

SIZES = [(5, 7), (11, 3), (1, 13)]


def projections(size: tuple[int, int], extents: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(size))
    query, key = torch.randn(2, 2, 3, *size, 4, generator=generator, dtype=torch.float64)
    down, along = (torch.randn(2 * extent - 1, 4, generator=generator, dtype=torch.float64) for extent in extents)
    return query, key, along, down


@pytest.mark.parametrize("extents", [(13, 13), (3, 2)], ids=["whole", "window"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rows_and_columns_of_global_self_attention(size: tuple[int, int], extents: tuple[int, int]) -> None:
    query, key, along, down = projections(size, extents)
    positional = FA.global_positional_map(query, along, down).unflatten(2, size).unflatten(4, size)
    content = FA.content_attention_map(query, key).unflatten(2, size).unflatten(4, size)
    for row in range(size[0]):
        for column in range(size[1]):
            alone = FA.global_positional_rows(query, along, down, slice(row, row + 1), slice(column, column + 1))
            assert relative_error(alone[:, :, 0, 0], positional[:, :, row, column]) < 1e-14
            at = FA.global_positional_column(query, along, down, row, column)
            assert relative_error(at, positional[..., row, column]) < 1e-14
            at = FA.content_attention_column(query, key, row, column)
            assert relative_error(at, content[..., row, column]) < 1e-14
            alone = FA.content_attention_map(query[:, :, row : row + 1, column : column + 1], key)
            assert relative_error(alone.view(2, 3, *size), content[:, :, row, column]) < 1e-14
    several = FA.global_positional_rows(query, along, down, slice(0, 4), slice(1, None, 2))
    assert relative_error(several, positional[:, :, :4, 1::2]) < 1e-14


@pytest.mark.parametrize("kernel", FA.KERNELS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rows_of_explicit_attention(size: tuple[int, int], kernel: str) -> None:
    """Against the definition, ``κ(d/r)`` over its sum, position by position."""
    radius = 2.3
    kernels = {
        "gaussian": lambda d: torch.exp(-d * d / 2),
        "laplace": lambda d: torch.exp(-d),
        "laplace_l1": lambda d: torch.exp(-d),
        "cauchy": lambda d: 1 / (1 + d * d),
        "cone": lambda d: (1 - d).clamp(min=0),
    }
    places = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float64) for side in size))
    weights = kernels[kernel](torch.cdist(places, places, p=1 if kernel == "laplace_l1" else 2) / radius)
    whole = (weights / weights.sum(1, keepdim=True)).unflatten(1, size).unflatten(0, size)
    tensor = torch.tensor(radius, dtype=torch.float64)
    assert relative_error(FA.explicit_attention_rows(*size, tensor, kernel), whole) < 1e-12
    rows, columns = slice(size[0] // 2, None), slice(0, 2)
    part = FA.explicit_attention_rows(*size, tensor, kernel, rows, columns)
    assert relative_error(part, whole[rows, columns]) < 1e-12


def test_half_precision_is_widened() -> None:
    query, key, along, down = (x.bfloat16() for x in projections((5, 7), (13, 13)))
    for alone in (
        FA.global_positional_rows(query, along, down),
        FA.global_positional_column(query, along, down, 2, 3),
        FA.content_attention_column(query, key, 2, 3),
    ):
        assert alone.dtype == torch.float32


def test_bad_input_is_refused() -> None:
    query, _, along, down = projections((5, 7), (13, 13))
    for wrong in (query[0], query[..., :3]):
        with pytest.raises(ValueError, match=r"query must be \(B, heads, H, W, d\)"):
            FA.global_positional_rows(wrong, along, down)
        with pytest.raises(ValueError, match=r"query must be \(B, heads, H, W, d\)"):
            FA.global_positional_column(wrong, along, down, 0, 0)
    for name, position in {"row": (5, 0), "column": (0, 7)}.items():
        for column in (
            partial(FA.global_positional_column, query, along, down),
            partial(FA.content_attention_column, query, query),
            partial(FA.axial_content_column, query, query),
        ):
            with pytest.raises(ValueError, match=f"{name} must be below"):
                column(*position)
            with pytest.raises(ValueError, match="row must be at least 0"):
                column(-1, 0)
    with pytest.raises(ValueError, match="a relative table is"):
        FA.global_positional_rows(query, along[1:], down)
    with pytest.raises(ValueError, match="kernel must be one of"):
        FA.explicit_attention_rows(5, 7, torch.tensor(1.0), "box")
