"""The five mechanisms, from their equations. ``p`` maps parameter names to float64 tensors."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from tests.reference.grids import Grid, concatenated, convolved, from_grid, halved, pointwise, pooled, to_grid

Parameters = dict[str, Tensor]


def kernel_weight(kernel: str, i: tuple[int, int], k: tuple[int, int], radius: Tensor) -> Tensor:
    d = math.dist(i, k) / radius
    if kernel == "gaussian":
        return torch.exp(-d * d / 2)
    if kernel == "laplace":
        return torch.exp(-d)
    if kernel == "laplace_l1":
        return torch.exp(-(abs(i[0] - k[0]) + abs(i[1] - k[1])) / radius)
    if kernel == "cauchy":
        return 1 / (1 + d * d)
    return torch.relu(1 - d)


def explicit(value: Grid, radius: Tensor, kernel: str) -> Grid:
    out = {}
    for i in value:
        weights = {k: kernel_weight(kernel, i, k, radius) for k in value}
        out[i] = sum(weights[k] * value[k] for k in value) / sum(weights.values())
    return out


def explicit_module(x: Tensor, p: Parameters, *, kernel: str, stride: int, downsample: bool = False) -> Tensor:
    grid = to_grid(x) if stride == 1 else pooled(to_grid(x))
    values = pointwise(pooled(grid) if downsample else grid, p["value.weight"])
    attended = pointwise(explicit(values, p["log_radius"].exp(), kernel), p["proj.weight"])
    if downsample:
        attended = bilinear(attended, *(1 + max(i[axis] for i in grid) for axis in (0, 1)))
    return from_grid(attended)


def expatt_conv(x: Tensor, p: Parameters, *, kernel: str, stride: int, downsample: bool = False) -> Tensor:
    attention = {name.removeprefix("attention."): value for name, value in p.items()}
    attended = to_grid(explicit_module(x, attention, kernel=kernel, stride=stride, downsample=downsample))
    return from_grid(concatenated(convolved(to_grid(x), p["conv.weight"], stride), attended))


def content(query: Grid, key: Grid, value: Grid, normalize_queries: bool = False) -> Grid:
    """One head of GSA: softmax of each key channel over the positions, queries as they are or normalised themselves."""
    if normalize_queries:
        query = {i: torch.exp(q) / torch.exp(q).sum(1, keepdim=True) for i, q in query.items()}
    largest = torch.stack(list(key.values())).max(0).values.detach()
    raised = {i: torch.exp(key[i] - largest) for i in key}
    total = sum(raised.values())
    context = sum((raised[i] / total).unsqueeze(2) * value[i].unsqueeze(1) for i in key)  # B, d, d_v
    return {i: torch.einsum("bd,bdv->bv", query[i], context) for i in query}


def axial_content(query: Grid, key: Grid, value: Grid) -> Grid:
    """One head of content that is taken down the columns, then along the rows."""
    for axis in (1, 0):  # what the positions of a line have in common
        value = {
            position: one
            for line in {i[axis] for i in value}
            for position, one in content(
                *({i: v for i, v in grid.items() if i[axis] == line} for grid in (query, key, value))
            ).items()
        }
    return value


def axial(query: Grid, value: Grid, table: Tensor, axis: int) -> Grid:
    """One head, one axis of GSA's positional attention; offsets outside the table do not attend."""
    extent = (table.shape[0] + 1) // 2
    out = {}
    for i in query:
        total = torch.zeros_like(value[i])
        for k in value:
            offset = k[axis] - i[axis]
            if k[1 - axis] == i[1 - axis] and abs(offset) < extent:
                total = total + (query[i] @ table[offset + extent - 1]).unsqueeze(1) * value[k]
        out[i] = total
    return out


def heads(grid: Grid, number: int) -> list[Grid]:
    size = next(iter(grid.values())).shape[1] // number
    return [{i: v[:, h * size : (h + 1) * size] for i, v in grid.items()} for h in range(number)]


def joined(grids: list[Grid]) -> Grid:
    return {i: torch.cat([grid[i] for grid in grids], dim=1) for i in grids[0]}


def normalised(grid: Grid, p: Parameters, prefix: str, training: bool, eps: float = 1e-5) -> Grid:
    if training:
        everything = torch.cat(list(grid.values()))
        mean = everything.mean(0)
        variance = ((everything - mean) ** 2).mean(0)
    else:
        mean, variance = p[f"{prefix}.running_mean"], p[f"{prefix}.running_var"]
    scale = p[f"{prefix}.weight"] / torch.sqrt(variance + eps)
    return {i: (v - mean) * scale + p[f"{prefix}.bias"] for i, v in grid.items()}


def global_self_module(
    x: Tensor,
    p: Parameters,
    *,
    num_heads: int,
    dim_key: int,
    stride: int,
    training: bool,
    part: str = "both",
    normalize_queries: bool = False,
    axial_content_too: bool = False,
) -> Tensor:
    has_content = part in ("both", "content")
    qkv = pointwise(to_grid(x), p["qkv.weight"])

    def split(first: int, last: int | None) -> list[Grid]:
        return heads({i: t[:, first:last] for i, t in qkv.items()}, num_heads)

    q, v = split(0, dim_key), split(2 * dim_key if has_content else dim_key, None)
    terms = []
    if part in ("columns", "rows"):
        table, axis = (p["rel_height"], 0) if part == "columns" else (p["rel_width"], 1)
        terms.append([axial(q[h], v[h], table, axis) for h in range(num_heads)])
    elif part != "content":
        down = joined([axial(q[h], v[h], p["rel_height"], 0) for h in range(num_heads)])
        down = heads(normalised(down, p, "norm", training), num_heads)
        terms.append([axial(q[h], down[h], p["rel_width"], 1) for h in range(num_heads)])
    if has_content:
        k = split(dim_key, 2 * dim_key)
        attend = axial_content if axial_content_too else partial(content, normalize_queries=normalize_queries)
        terms.append([attend(q[h], k[h], v[h]) for h in range(num_heads)])
    out = joined([{i: sum(term[h][i] for term in terms) for i in v[h]} for h in range(num_heads)])
    return from_grid(out if stride == 1 else halved(out))


def clipped(table: Tensor, offset: int) -> Tensor:
    extent = (table.shape[0] + 1) // 2
    return table[max(-(extent - 1), min(extent - 1, offset)) + extent - 1]


def augmented(query: Grid, key: Grid, value: Grid, rows: Tensor, columns: Tensor) -> Grid:
    """One head of full attention with relative positions."""
    dim = rows.shape[1]
    out = {}
    for i in query:
        logits = torch.stack(
            [
                (query[i] * (key[j] + clipped(rows, j[0] - i[0]) + clipped(columns, j[1] - i[1]))).sum(1)
                / math.sqrt(dim)
                for j in key
            ]
        )  # N, B
        weights = torch.exp(logits - logits.max(0).values.detach())
        weights = weights / weights.sum(0)
        out[i] = sum(w.unsqueeze(1) * value[j] for w, j in zip(weights, key, strict=True))
    return out


def augmented_conv(x: Tensor, p: Parameters, *, num_heads: int, dim_key: int, stride: int, downsample: bool) -> Tensor:
    grid = to_grid(x)
    convolution = convolved(grid, p["conv.weight"], stride)
    for _ in range((stride == 2) + downsample):
        grid = pooled(grid)
    qkv = pointwise(grid, p["qkv.weight"])
    q, k, v = (
        heads({i: t[:, part] for i, t in qkv.items()}, num_heads)
        for part in (slice(0, dim_key), slice(dim_key, 2 * dim_key), slice(2 * dim_key, None))
    )
    tables = p["rel_height"], p["rel_width"]
    attended = pointwise(joined([augmented(q[h], k[h], v[h], *tables) for h in range(num_heads)]), p["proj.weight"])
    if downsample:
        attended = bilinear(attended, *(1 + max(i[axis] for i in convolution) for axis in (0, 1)))
    return from_grid(concatenated(convolution, attended))


def bilinear(grid: Grid, height: int, width: int) -> Grid:
    """Interpolate between pixel centres, the outermost values continued to the edge."""
    sides = [1 + max(i[axis] for i in grid) for axis in (0, 1)]

    def neighbours(index: int, size: int, old: int) -> list[tuple[int, float]]:
        centre = max(0.0, (index + 0.5) * old / size - 0.5)
        low = min(int(centre), old - 1)
        return [(low, 1 - (centre - low)), (min(low + 1, old - 1), centre - low)]

    return {
        (i, j): sum(
            a * b * grid[k, m] for k, a in neighbours(i, height, sides[0]) for m, b in neighbours(j, width, sides[1])
        )
        for i in range(height)
        for j in range(width)
    }


def rectangle_gate(rectangle: Tensor, height: int, width: int, sharpness: float) -> Grid:
    cx, cy, sx, sy, angle = rectangle.unbind(1)
    out = {}
    for i in range(height):
        for j in range(width):
            x, y = (2 * j + 1) / width - 1 - cx, (2 * i + 1) / height - 1 - cy
            u = x * torch.cos(-angle) - y * torch.sin(-angle)  # the rotation matrix of −α
            v = x * torch.sin(-angle) + y * torch.cos(-angle)
            inside_u = torch.sigmoid(sharpness * (sx - torch.abs(u)))
            inside_v = torch.sigmoid(sharpness * (sy - torch.abs(v)))
            out[i, j] = (inside_u * inside_v).unsqueeze(1)
    return out


def predicted_rectangle(x: Tensor, p: Parameters) -> Tensor:
    scores = pointwise(to_grid(x), p["score.weight"])
    height, width = x.shape[2:]
    raised = {i: torch.exp(s) for i, s in scores.items()}
    total = sum(raised.values())
    moments = 0
    number = height * width
    for (i, j), weight in raised.items():
        px, py = (2 * j + 1) / width - 1, (2 * i + 1) / height - 1
        monomials = torch.tensor([px, py, px * px, px * py, py * py], dtype=x.dtype)
        moments = moments + (weight / total - 1 / number).unsqueeze(2) * monomials
    raw = moments.flatten(1) @ p["readout.weight"].T + p["readout.bias"]
    half_size = torch.log1p(torch.exp(raw[:, 2:4] + math.log(math.exp(1.6) - 1)))
    return torch.cat([torch.tanh(raw[:, :2]), half_size, raw[:, 4:]], dim=1)


def rectangular_module(x: Tensor, p: Parameters, *, sharpness: float) -> Tensor:
    gate = rectangle_gate(predicted_rectangle(x, p), *x.shape[2:], sharpness)
    return from_grid({i: v * gate[i] for i, v in to_grid(x).items()})


def positionwise_module(x: Tensor, p: Parameters) -> Tensor:
    hidden = pointwise(to_grid(x), p["reduce.weight"], p["reduce.bias"])
    logits = pointwise({i: torch.relu(h) for i, h in hidden.items()}, p["score.weight"], p["score.bias"])
    return from_grid({i: v * torch.sigmoid(logits[i]) for i, v in to_grid(x).items()})
