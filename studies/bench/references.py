"""What our modules compute, written down plainly: the equations, with every weight formed, for float64.

Nothing here shares code with `foveate.functional`. To stay affordable at any size, a reference computes some rows or
positions of the output: all that these depend on, nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.inspection import attention_modules
from foveate.nn import GlobalSelfAttention2d
from studies.bench.subject import Reference

__all__ = [
    "explicit_conv_reference",
    "explicit_reference",
    "explicitly_attended",
    "gate_reference",
    "global_self_reference",
    "itself",
    "network_reference",
    "unfused_reference",
]

WEIGHTS_AT_ONCE = 2**25
"""How many weights of an N×N map are held: 256 MiB."""
MAX_POSITIONS = 64
ROWS = 3


def explicit_reference(kernel: str) -> Reference:
    """Refer a module with ``radius``, whose output is explicit attention to its input, to its map."""

    def compute(module: Any, x: Tensor) -> Tensor:
        x, radius = _ends(x), module.get_parameter("radius")
        return explicitly_attended(x, radius, kernel, _some_positions(*x.shape[2:]))

    return Reference(f"float64, the map of at most {MAX_POSITIONS} pixels", compute, _pick_positions)


def explicit_conv_reference() -> Reference:
    """Refer an `ExpAttConv2d` of stride 1 to its convolution and its map."""

    def compute(module: Any, x: Tensor) -> Tensor:
        x, attention = _ends(x), module.attention
        positions = _some_positions(*x.shape[2:])
        attended = explicitly_attended(attention.project(x), attention.radius, attention.kernel, positions)
        attended = attention.proj(attended[..., None])[..., 0]
        return torch.cat([module.conv(x).flatten(2)[..., positions], attended], dim=1)

    return Reference(f"float64, the map of at most {MAX_POSITIONS} pixels", compute, _pick_positions)


def global_self_reference() -> Reference:
    """Refer a `GlobalSelfAttention2d` of stride 1 to its equations, in some rows."""

    def compute(module: Any, x: Tensor) -> Tensor:
        x = _ends(x)
        return _global_self(module, x, _some_rows(x.shape[2]))

    return Reference(
        f"float64, scores of {ROWS} rows held", compute, lambda out: _ends(out)[:, :, _some_rows(out.shape[2])]
    )


def gate_reference() -> Reference:
    """Refer a module that multiplies by its map to that map, in float64."""

    def compute(module: Any, x: Tensor) -> Tensor:
        return x * module.attention_map(x)

    return Reference("float64, its map times the input", compute, lambda out: out)


def network_reference() -> Reference:
    """Refer a network to itself in float64, with every map of its attention formed, one image at a time."""

    def compute(network: nn.Module, x: Tensor) -> Tensor:
        for module in attention_modules(network).values():
            module.forward = module.forward_by_maps
        return torch.cat([network(image[None]) for image in _ends(x)])

    return Reference("float64, attention by its maps", compute, _ends)


def unfused_reference() -> Reference:
    """Refer a network to itself in float64 without our kernels: for images whose maps no memory holds."""

    def compute(network: nn.Module, x: Tensor) -> Tensor:
        for module in attention_modules(network).values():
            if isinstance(module, GlobalSelfAttention2d):
                module.fused = False
        return torch.cat([network(image[None]) for image in _ends(x)])

    return Reference("float64, by PyTorch's operators", compute, _ends)


def itself() -> Reference:
    """Refer a module to itself in float64."""
    return Reference("itself in float64", lambda module, x: module(_ends(x)), _ends)


def explicitly_attended(value: Tensor, radius: Tensor, kernel: str, positions: Tensor) -> Tensor:
    """Return ``Σ_j A_ij V_j`` for the given ``positions`` i of ``(B, C, H, W)``: ``(B, C, len(positions))``."""
    height, width = value.shape[2:]
    positions = positions.to(value.device)
    every = torch.arange(height * width, device=value.device)
    rows, columns = (positions // width)[:, None] - every // width, (positions % width)[:, None] - every % width
    distance = (rows.to(value.dtype) ** 2 + columns.to(value.dtype) ** 2).sqrt() / radius
    blocks = (rows.abs() + columns.abs()) / radius
    weights = {
        "gaussian": lambda: (-(distance**2) / 2).exp(),
        "laplace": lambda: (-distance).exp(),
        "laplace_l1": lambda: (-blocks).exp(),
        "cauchy": lambda: 1 / (1 + distance**2),
        "cone": lambda: F.relu(1 - distance),
    }[kernel]()
    weights = weights / weights.sum(1, keepdim=True)
    return value.flatten(2) @ weights.T


def _global_self(module: Any, x: Tensor, rows: list[int]) -> Tensor:
    """Compute the given rows of the output, before pooling: ``(B, dim_out, len(rows), W)``."""
    query, key, value = module.project(x)  # B, heads, H, W, d
    context = torch.einsum("bhyxk,bhyxd->bhkd", key.flatten(2, 3).softmax(2).view(key.shape), value)
    down = _vectors(module.rel_height, x.shape[2])
    along = _vectors(module.rel_width, x.shape[3])
    outputs = []
    for row in rows:
        q = query[:, :, row]  # B, heads, W, d
        scores = torch.einsum("bhxk,yk->bhxy", q, down[row])
        hidden = torch.einsum("bhxy,bhyxd->bhdx", scores, value)
        norm = module.norm
        flat = F.batch_norm(
            hidden.flatten(1, 2), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        hidden = flat.view(hidden.shape)
        scores = torch.einsum("bhxk,xuk->bhxu", q, along)
        positional = torch.einsum("bhxu,bhdu->bhdx", scores, hidden)
        content = torch.einsum("bhxk,bhkd->bhdx", q, context)
        outputs.append((content + positional).flatten(1, 2))
    return torch.stack(outputs, dim=2)


def _vectors(table: Tensor, size: int) -> Tensor:
    """Return ``(size, size, d)``: the vector of offset ``j − i`` at ``(i, j)``, zero where the table has none."""
    positions = torch.arange(size, device=table.device)
    index = positions - positions[:, None] + table.shape[0] // 2
    inside = (index >= 0) & (index < table.shape[0])
    return table[index.clamp(0, table.shape[0] - 1)] * inside[..., None]


def _ends(x: Tensor) -> Tensor:
    """Return the first and the last image: work that is cut into parts of a batch shows its seams there."""
    return x if len(x) < 3 else x[[0, -1]]


def _some_rows(height: int) -> list[int]:
    """Return the first row, the last, and one between."""
    return sorted({0, height // ROWS, height - 1})


def _some_positions(height: int, width: int) -> Tensor:
    """Return positions all over the map, corners included, as many as `WEIGHTS_AT_ONCE` allows."""
    positions = height * width
    number = min(positions, MAX_POSITIONS, max(2, WEIGHTS_AT_ONCE // positions))
    return torch.linspace(0, positions - 1, number, dtype=torch.float64).round().long()


def _pick_positions(output: Tensor) -> Tensor:
    return _ends(output).flatten(2)[..., _some_positions(*output.shape[2:])]
