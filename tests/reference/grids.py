"""What the references share: feature maps as dictionaries from a position to its channels."""

from __future__ import annotations

import torch
from torch import Tensor

Grid = dict[tuple[int, int], Tensor]
"""``grid[row, column]`` is ``(B, C)``."""


def to_grid(x: Tensor) -> Grid:
    return {(i, j): x[:, :, i, j] for i in range(x.shape[2]) for j in range(x.shape[3])}


def from_grid(grid: Grid) -> Tensor:
    height, width = (1 + max(position[axis] for position in grid) for axis in (0, 1))
    rows = [torch.stack([grid[i, j] for j in range(width)], dim=-1) for i in range(height)]
    return torch.stack(rows, dim=-2)


def pointwise(grid: Grid, weight: Tensor, bias: Tensor | None = None) -> Grid:
    """Apply a 1×1 convolution with weight ``(C_out, C_in, 1, 1)``."""
    matrix = weight[:, :, 0, 0]
    return {p: v @ matrix.T + (0 if bias is None else bias) for p, v in grid.items()}


def convolved(grid: Grid, weight: Tensor, stride: int, dilation: int = 1) -> Grid:
    """Apply a 3×3 convolution with padding equal to its dilation."""
    height, width = (1 + max(p[axis] for p in grid) for axis in (0, 1))
    out = {}
    for i in range(0, height, stride):
        for j in range(0, width, stride):
            total = 0
            for di in range(3):
                for dj in range(3):
                    p = (i + (di - 1) * dilation, j + (dj - 1) * dilation)
                    if p in grid:
                        total = total + grid[p] @ weight[:, :, di, dj].T
            out[i // stride, j // stride] = total
    return out


def pooled(grid: Grid) -> Grid:
    """Average 3×3 neighbourhoods with stride 2; what lies outside counts as zeros."""
    height, width = (1 + max(p[axis] for p in grid) for axis in (0, 1))
    out = {}
    for i in range(0, height, 2):
        for j in range(0, width, 2):
            inside = [grid[a, b] for a in range(i - 1, i + 2) for b in range(j - 1, j + 2) if (a, b) in grid]
            out[i // 2, j // 2] = sum(inside) / 9
    return out


def halved(grid: Grid) -> Grid:
    """Average 2×2 blocks; an incomplete block at the edge averages what there is."""
    out = {}
    for i, j in grid:
        if i % 2 == 0 and j % 2 == 0:
            block = [grid[a, b] for a in (i, i + 1) for b in (j, j + 1) if (a, b) in grid]
            out[i // 2, j // 2] = sum(block) / len(block)
    return out


def concatenated(first: Grid, second: Grid) -> Grid:
    return {p: torch.cat([first[p], second[p]], dim=1) for p in first}
