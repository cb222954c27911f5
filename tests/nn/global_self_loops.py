"""GSA in training written out as loops, for comparison."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveate.nn import GlobalSelfAttention2d

__all__ = ["reference"]


def reference(module: GlobalSelfAttention2d, x: Tensor) -> Tensor:
    """Compute it by loops over heads, offsets and pixels, but for the pooling."""
    qkv = F.conv2d(x, module.qkv.weight)
    batch, _, height, width = qkv.shape
    sizes = (module.dim_key, module.dim_key, module.dim_out)
    query, key, value = (part.unflatten(1, (module.num_heads, -1)) for part in qkv.split(sizes, dim=1))

    def column(y: int, x: int) -> Tensor:
        terms = []
        for other in range(height):
            offset = other - y + (len(module.rel_height) + 1) // 2 - 1
            if 0 <= offset < len(module.rel_height):
                weight = (query[..., y, x] * module.rel_height[offset]).sum(-1, keepdim=True)
                terms.append(weight * value[..., other, x])
        return torch.stack(terms).sum(0)

    hidden = torch.stack([torch.stack([column(y, x) for x in range(width)], -1) for y in range(height)], -2)
    pixels = hidden.flatten(1, 2)
    mean = pixels.mean((0, 2, 3), keepdim=True)
    variance = (pixels - mean).square().mean((0, 2, 3), keepdim=True)
    scale, shift = (parameter.view(-1, 1, 1) for parameter in (module.norm.weight, module.norm.bias))
    hidden = ((pixels - mean) / (variance + module.norm.eps).sqrt() * scale + shift).view(hidden.shape)

    shares = key.flatten(3).softmax(-1).view(key.shape)
    context = torch.einsum("bhdyx,bhcyx->bhdc", shares, value)

    def pixel(y: int, x: int) -> Tensor:
        found = torch.einsum("bhd,bhdc->bhc", query[..., y, x], context)
        for other in range(width):
            offset = other - x + (len(module.rel_width) + 1) // 2 - 1
            if 0 <= offset < len(module.rel_width):
                weight = (query[..., y, x] * module.rel_width[offset]).sum(-1, keepdim=True)
                found = found + weight * hidden[..., y, other]
        return found

    rows = [torch.stack([pixel(y, x) for x in range(width)], -1) for y in range(height)]
    return torch.stack(rows, -2).view(batch, -1, height, width)
