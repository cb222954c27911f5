"""Attention-augmented convolution (AA), the baseline with full attention."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate._checks import feature_map, integer, number
from foveate._shapes import Float
from foveate.functional._layout import in_layout_of
from foveate.functional._pooling import average_pool
from foveate.functional.augmented import augmented_attention, augmented_attention_map
from foveate.nn._heads import merge_heads, split_heads
from foveate.nn.relative_tables import RelativeTables2d
from foveate.nn.spatial_attention import detached
from foveate.nn.weights import FormedWeights, PairwiseWeights

__all__ = ["AttentionAugmentedConv2d"]


class AttentionAugmentedConv2d(RelativeTables2d):
    """A 3×3 convolution of which some output channels are full self-attention instead.

        concat[conv3×3(x) → F − d_v channels,  W_O (A V) → d_v channels]

    ``A``, N² weights for each head, is the softmax over all positions of content and relative-position logits; see
    `foveate.functional.augmented_attention_map`.

    Source: Bello et al. 2019 (arXiv 1904.09925). Not known of the paper: the table's behavior outside its
    extent; here the outermost vector is used.

    Args:
        in_channels: Channels of the input.
        out_channels: ``F``, channels of the output.
        feat_size: Size of the attended map, ``L`` or ``(L_H, L_W)`` (after stride and downsampling), at
            the training resolution: the extent of the relative tables.
        stride: Stride of the convolution; the attention average-pools its input (3×3, padding 1) to match.
        num_heads: Number of heads.
        key_ratio: ``κ``: key channels are ``max(⌊κF / heads⌋, min_dim_key)`` a head.
        value_ratio: ``υ``: value channels ``d_v`` are ``⌊υF / heads⌋`` a head.
        min_dim_key: Fewest key channels of a head.
        downsample: Attend at half resolution: 3×3 average pooling with stride 2 before, bilinear upsampling after.
        dilation: Dilation of the convolution.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Examples:
        >>> layer = foveate.nn.AttentionAugmentedConv2d(16, 80, feat_size=(5, 7), num_heads=2)
        >>> layer.dim_value, layer(torch.randn(2, 16, 5, 7)).shape
        (8, torch.Size([2, 80, 5, 7]))
    """

    title = "AA: attention beside convolution"
    description = "Some channels take from all positions, the others are a convolution."
    convolution = "conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        feat_size: int | tuple[int, int] = 14,
        stride: int = 1,
        num_heads: int = 8,
        key_ratio: float = 0.2,
        value_ratio: float = 0.1,
        min_dim_key: int = 20,
        downsample: bool = False,
        dilation: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_channels = integer("in_channels", in_channels)
        self.out_channels = integer("out_channels", out_channels)
        self.stride = integer("stride", stride)
        self.num_heads = integer("num_heads", num_heads)
        number("key_ratio", key_ratio, minimum=0, maximum=1)
        number("value_ratio", value_ratio, minimum=0, maximum=1)
        self.downsample = bool(downsample)
        integer("dilation", dilation)
        dim_head_key = max(math.floor(key_ratio * out_channels / num_heads + 1e-9), integer("min_dim_key", min_dim_key))
        self.dim_key = num_heads * dim_head_key
        self.dim_value = num_heads * math.floor(value_ratio * out_channels / num_heads + 1e-9)
        if not 0 < self.dim_value < out_channels:
            channels = f"value_ratio={value_ratio:g} of {out_channels} channels for num_heads={num_heads}"
            remedy = f"value_ratio from {num_heads / out_channels:.3g} to below 1, or fewer heads"
            if num_heads >= out_channels:
                remedy = f"num_heads below out_channels={out_channels}"
            raise ValueError(
                f"{channels} gives {self.dim_value} value channels, and leaves {out_channels - self.dim_value} to the "
                f"convolution; both must have some: {remedy}"
            )
        self.conv = nn.Conv2d(
            in_channels, out_channels - self.dim_value, 3, stride, dilation, dilation, bias=False, **dd
        )
        self.qkv = nn.Conv2d(in_channels, 2 * self.dim_key + self.dim_value, 1, bias=False, **dd)
        self.proj = nn.Conv2d(self.dim_value, self.dim_value, 1, bias=False, **dd)
        self.make_tables(feat_size, dim_head_key, **dd)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the convolution as ResNets do, the projections variance-preserving, the tables with ``d^−½``."""
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        for conv in (self.qkv, self.proj):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
        for table in (self.rel_height, self.rel_width):
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    def project(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch heads rows columns _"], ...]:
        """Return queries, keys and values at the attended resolution."""
        feature_map(x, self.in_channels, "AttentionAugmentedConv2d")
        if self.stride > 1:
            x = average_pool(x, self.stride)
        if self.downsample:
            x = average_pool(x, 2)
        return split_heads(self.qkv(x), (self.dim_key, self.dim_key, self.dim_value), self.num_heads)

    def values(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch heads positions dim_head"]:
        """Return the values that the map weighs."""
        return self.project(x)[2].flatten(2, 3)

    def attention_map(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch heads positions positions"]:
        """Return the map at the attended resolution; rows sum to 1."""
        query, key, _ = self.project(x)
        return augmented_attention_map(query, key, self.rel_height, self.rel_width)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim_out rows columns"]:
        """Convolve and attend; a stride divides height and width, rounded up."""
        query, key, value = self.project(x)
        return self.combine(x, augmented_attention(query, key, value, self.rel_height, self.rel_width))

    def forward_by_maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim_out rows columns"]:
        """Compute the output with the maps formed; for small maps only."""
        value = self.project(x)[2]
        attended = self.attention_map(x).to(value.dtype) @ value.flatten(2, 3)
        return self.combine(x, attended.view(value.shape))

    def forward_without(
        self, x: Float[Tensor, "batch channels height width"], part: str = "attention"
    ) -> Float[Tensor, "batch dim_out rows columns"]:
        """Let each position attend to itself alone: ``A = I``."""
        return self.combine(x, self.project(x)[2])

    def weights(self, x: Float[Tensor, "batch channels height width"]) -> PairwiseWeights:
        """Return the weights at the attended resolution; the map of an image is formed as a whole."""
        query, key, values = map(detached, self.project(x))
        FormedWeights.check_size(values)
        tables = detached(self.rel_height), detached(self.rel_width)
        return FormedWeights(values, partial(_map_of, query, key, *tables))

    def map_parameters(self) -> dict[str, slice]:
        """Name queries, keys and tables."""
        return super().map_parameters() | {"qkv.weight": slice(2 * self.dim_key)}

    def combine(
        self,
        x: Float[Tensor, "batch channels height width"],
        attended: Float[Tensor, "batch heads rows columns dim_head"],
    ) -> Float[Tensor, "batch dim_out out_height out_width"]:
        """Concatenate the convolution of ``x`` and what was attended to."""
        convolved = self.conv(x)
        attended = self.proj(in_layout_of(x, merge_heads(attended)))
        if self.downsample:
            attended = F.interpolate(attended, convolved.shape[2:], mode="bilinear")
        return torch.cat([convolved, attended], dim=1)

    def extra_repr(self) -> str:
        """Describe the module."""
        return (
            f"{self.in_channels}, {self.out_channels}, feat_size={self.feat_size}, "
            f"stride={self.stride}, num_heads={self.num_heads}, dim_key={self.dim_key}, dim_value={self.dim_value}, "
            f"downsample={self.downsample}"
        )


def _map_of(query: Tensor, key: Tensor, rel_height: Tensor, rel_width: Tensor, images: slice) -> Tensor:
    return augmented_attention_map(query[images], key[images], rel_height, rel_width)


for _name in (
    "average_pool",
    "feature_map",
    "split_heads",
    "in_layout_of",
    "merge_heads",
    "augmented_attention",
):  # tracing keeps these whole
    torch.fx.wrap(_name)
