"""N×N attention as one writes it without a factorisation: what ours is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import functional as FA

__all__ = ["DenseExplicit", "FactoredExplicit", "SoftmaxAttention2d"]

RADIUS = 4.0


class FactoredExplicit(nn.Module):
    """`foveate.functional.explicit_attention` with its one parameter."""

    def __init__(self, kernel: str) -> None:
        super().__init__()
        self.kernel = kernel
        self.radius = nn.Parameter(torch.tensor(RADIUS))

    def forward(self, x: Tensor) -> Tensor:
        """Attend: ``(B, C, H, W)`` to the same."""
        return FA.explicit_attention(x, self.radius, self.kernel)


class DenseExplicit(nn.Module):
    """Gaussian explicit attention as the softmax over all pixels of ``−d²/2r²``, times the values.

    The logits are formed in one pass over their N², in each call, as they have a parameter.

    Args:
        through: ``matmul``, for a softmax and a product of matrices, or ``sdpa``, for the logits to be the mask of
            `torch.nn.functional.scaled_dot_product_attention` with queries and keys of zero.
    """

    def __init__(self, through: str) -> None:
        super().__init__()
        self.through = through
        self.radius = nn.Parameter(torch.tensor(RADIUS))

    def forward(self, x: Tensor) -> Tensor:
        """Attend: ``(B, C, H, W)`` to the same."""
        batch, channels, height, width = x.shape
        rows, columns = (self._logits(size, x.device) for size in (height, width))
        logits = (rows[:, None, :, None] + columns[None, :, None, :]).view(height * width, height * width)
        if self.through == "matmul":
            return (x.flatten(2) @ logits.softmax(1).to(x.dtype).mT).view(x.shape)
        value = x.flatten(2).mT.unsqueeze(1)  # B, 1, N, C
        zeros = torch.zeros_like(value)
        out = F.scaled_dot_product_attention(zeros, zeros, value, attn_mask=logits.to(x.dtype))
        return out.transpose(2, 3).reshape(batch, channels, height, width)

    def _logits(self, size: int, device: torch.device) -> Tensor:
        positions = torch.arange(size, device=device, dtype=torch.float32)
        return -0.5 * ((positions[:, None] - positions) / self.radius) ** 2


class SoftmaxAttention2d(nn.Module):
    """Self-attention of every pixel to every pixel, through `torch.nn.functional.scaled_dot_product_attention`.

    Queries, keys and values by one 1×1 convolution without bias; no positional term and no output projection.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: ``(B, dim, H, W)`` to the same."""
        qkv = self.qkv(x).unflatten(1, (3, self.num_heads, -1)).flatten(4)  # B, 3, heads, d, N
        query, key, value = qkv.mT.unbind(1)  # B, heads, N, d
        return F.scaled_dot_product_attention(query, key, value).mT.reshape(x.shape)
