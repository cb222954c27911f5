"""Explicitly modeled attention (ExpAtt) and the convolution that it augments."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from foveate._checks import feature_map, integer, number, one_of
from foveate._shapes import Float
from foveate.functional._pooling import average_pool, strided_size, upsample_to_stride
from foveate.functional._precision import upcast
from foveate.functional.explicit import KERNELS, explicit_attention, explicit_attention_map, explicit_attention_rows
from foveate.nn._explicit_folded import convolve_and_attend
from foveate.nn._scripting import NotScriptable
from foveate.nn.spatial_attention import Observation, PairwiseAttention, detached
from foveate.nn.weights import PairwiseWeights

__all__ = ["ExpAttConv2d", "ExplicitAttention2d"]


class ExplicitAttention2d(NotScriptable, PairwiseAttention):
    """Attention whose map is a function of distance with one learnable radius: ``W_O (A W_V x)``.

        A_ij = κ(‖p_i − p_j‖ / r) / Σ_k κ(‖p_i − p_k‖ / r)

    ``W_V`` and ``W_O`` are 1×1 convolutions without bias. The parameter is the logarithm of the radius: the radius
    stays positive, and a step changes it in proportion.

    Source: Tan et al. 2021 (arXiv 2006.07872). The kernels other than the Gaussian were chosen here.

    Args:
        dim: Channels of the input.
        dim_out: Channels of the values and of the output; ``dim`` by default.
        kernel: ``gaussian``, ``laplace``, ``laplace_l1``, ``cauchy`` or ``cone``; see
            `foveate.functional.explicit_attention_map`.
        radius: Initial ``r``, in pixels of the attended map; above 0.
        stride: 1, or 2 to average-pool the input first (3×3, stride 2, padding 1).
        downsample: Attend at half resolution: 3×3 average pooling with stride 2 before, bilinear upsampling after.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Examples:
        >>> module, x = foveate.nn.ExplicitAttention2d(8, radius=2.0), torch.randn(2, 8, 5, 7)
        >>> module(x).shape, module.attention_map(x).shape
        (torch.Size([2, 8, 5, 7]), torch.Size([1, 1, 35, 35]))
    """

    title = "ExpAtt: attention to what is near"
    description = (
        "Each position takes from those around it, the nearer the more, in every image alike. The circle is the "
        "radius, learned in training, the only number behind the map."
    )
    depends_on_content = False

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        *,
        kernel: str = "gaussian",
        radius: float = 2.0,
        stride: int = 1,
        downsample: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dim = integer("dim", dim)
        self.dim_out = integer("dim_out", dim if dim_out is None else dim_out)
        self.kernel = one_of("kernel", kernel, KERNELS)
        self.initial_radius = number("radius", radius, above=0)
        self.stride = integer("stride", stride)
        self.downsample = bool(downsample)
        self.value = nn.Conv2d(dim, self.dim_out, 1, bias=False, **dd)
        self.proj = nn.Conv2d(self.dim_out, self.dim_out, 1, bias=False, **dd)
        self.log_radius = nn.Parameter(torch.empty(1, **dd))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the two projections anew (variance-preserving) and reset the radius to its initial value."""
        for conv in (self.value, self.proj):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
        nn.init.constant_(self.log_radius, math.log(self.initial_radius))

    @property
    def radius(self) -> Float[Tensor, " 1"]:
        """The radius ``r > 0`` in pixels of the attended map, a tensor of one element with its gradient.

        Set to a number it is a new parameter: training on needs a new optimizer.
        """
        return _radius(self.log_radius)

    @radius.setter
    def radius(self, radius: float) -> None:
        # A new parameter, not new contents: copies of the network that share the tensor keep their radius.
        logarithm = math.log(number("radius", radius, above=0))
        trainable = self.log_radius.requires_grad
        with torch.inference_mode(False):
            self.log_radius = nn.Parameter(torch.full_like(self.log_radius, logarithm), requires_grad=trainable)

    def project(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim_out rows columns"]:
        """Return ``V = W_V x`` at the attended resolution."""
        return self.value(self._pooled(x))

    def values(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 positions dim_out"]:
        """Return what the map weighs, a single head."""
        return self.project(x).flatten(2).transpose(1, 2).unsqueeze(1)

    def attention_map(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "1 1 positions positions"]:
        """Return the map at the attended resolution; rows sum to 1. It depends on the size of ``x`` alone."""
        feature_map(x, self.dim, type(self).__name__)
        height, width = strided_size(x, *(self.stride, 2) if self.downsample else (self.stride,))
        return explicit_attention_map(height, width, self.radius, self.kernel)[None, None]

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim_out rows columns"]:
        """Attend; a stride divides height and width, rounded up."""
        feature_map(x, self.dim, "ExplicitAttention2d")
        return self._out(x, _attend(self.project(x), self.log_radius, self.kernel))

    def forward_by_maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim_out rows columns"]:
        """Compute ``W_O (A V)`` with the map formed; for small maps only."""
        value = self.project(x)
        attended = self.attention_map(x)[0, 0].to(value.dtype) @ value.flatten(2).transpose(1, 2)
        return self._out(x, attended.transpose(1, 2).reshape(value.shape))

    def forward_without(
        self, x: Float[Tensor, "batch channels height width"], part: str = "attention"
    ) -> Float[Tensor, "batch dim_out rows columns"]:
        """Let each position attend to itself alone: ``A = I``, the limit of a radius of zero."""
        return self._out(x, self.project(x))

    def _pooled(self, x: Tensor) -> Tensor:
        return _pool(_pool(x, self.stride), 2 if self.downsample else 1)

    def _out(self, x: Tensor, attended: Tensor) -> Tensor:
        out = self.proj(attended)
        return upsample_to_stride(out, x, self.stride) if self.downsample else out

    def weights(self, x: Float[Tensor, "batch channels height width"]) -> PairwiseWeights:
        """Return the weights; rows are formed from the radius alone."""
        return _ExplicitWeights(detached(self.project(x)), detached(self.radius), self.kernel)

    def observe(self, x: Float[Tensor, "batch channels height width"]) -> Observation:
        """Return the weights and the radius."""
        return Observation(weights=self.weights(x), radius=self.radius.item())

    def map_parameters(self) -> dict[str, slice]:
        """Name the radius: all that makes the map."""
        return {"log_radius": slice(None)}

    def scale_reach(self, factor: float) -> None:
        """Multiply the radius, which becomes a new parameter."""
        self.radius = self.radius.item() * number("factor", factor, above=0)

    def no_weight_decay(self) -> set[str]:
        """Name the radius: decay would pull it towards one pixel."""
        return {"log_radius"}

    def scalars(self) -> dict[str, tuple[float, float]]:
        """Return the radius in positions of the map: its initial and its current value."""
        return {"radius": (self.initial_radius, self.radius.item())}

    def extra_repr(self) -> str:
        """Describe the module."""
        start = f"kernel={self.kernel!r}, radius={self.initial_radius:g}"
        end = ", downsample=True" if self.downsample else ""
        return f"{self.dim}, {self.dim_out}, {start}, stride={self.stride}{end}"


class ExpAttConv2d(nn.Module):
    """A 3×3 convolution of which some output channels are explicit attention instead.

        concat[conv3×3(x) → F − d_v channels,  ExpAtt(x) → d_v channels],     d_v = ⌊value_ratio · F⌋

    Source: Tan et al. 2021 (arXiv 2006.07872), after Bello et al. 2019. The share of a tenth is derived from the
    published saving in parameters.

    Args:
        in_channels: Channels of the input.
        out_channels: ``F``, channels of the output.
        stride: Stride of the convolution; the attention average-pools its input to match.
        value_ratio: Share of the output channels that attend, between 0 and 1.
        kernel: As in `ExplicitAttention2d`.
        radius: As in `ExplicitAttention2d`.
        downsample: As in `ExplicitAttention2d`.
        dilation: Dilation of the convolution.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Examples:
        >>> layer = foveate.nn.ExpAttConv2d(16, 20, stride=2)
        >>> layer.attention.dim_out, layer(torch.randn(2, 16, 5, 7)).shape
        (2, torch.Size([2, 20, 3, 4]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        value_ratio: float = 0.1,
        kernel: str = "gaussian",
        radius: float = 2.0,
        downsample: bool = False,
        dilation: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_channels = integer("in_channels", in_channels)
        self.out_channels = integer("out_channels", out_channels)
        integer("stride", stride)
        integer("dilation", dilation)
        number("value_ratio", value_ratio, minimum=0, maximum=1)
        self.dim_value = dim_value = math.floor(value_ratio * out_channels + 1e-9)  # 0.29 · 100 is 28.999… in binary
        if not 0 < dim_value < out_channels:
            kind = "attention" if dim_value == 0 else "the convolution"
            raise ValueError(
                f"value_ratio={value_ratio:g} of {out_channels} channels leaves none for {kind}; it must be at least "
                f"{1 / out_channels:.3g} and below 1"
            )
        self.conv = nn.Conv2d(
            in_channels,
            out_channels - dim_value,
            3,
            stride,
            padding=dilation,
            dilation=dilation,
            bias=False,
            **dd,
        )
        self.attention = ExplicitAttention2d(
            in_channels, dim_value, kernel=kernel, radius=radius, stride=stride, downsample=downsample, **dd
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the convolution as ResNets do, and the attention as `ExplicitAttention2d` does."""
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.attention.reset_parameters()

    def extra_repr(self) -> str:
        """Describe the module."""
        return f"{self.in_channels}, {self.out_channels}, dim_value={self.dim_value}"

    def attention_map(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "1 1 positions positions"]:
        """Return the map of the attention branch."""
        return self.attention.attention_map(x)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim_out rows columns"]:
        """Convolve and attend; a stride divides height and width, rounded up."""
        feature_map(x, self.in_channels, "ExpAttConv2d")
        if (out := convolve_and_attend(self, ExplicitAttention2d, x)) is not None:
            return out
        return torch.cat([self.conv(x), self.attention(x)], dim=1)


class _ExplicitWeights(PairwiseWeights):
    """Weights of explicit attention: a function of distance, the same for every image."""

    def __init__(self, value: Tensor, radius: Tensor, kernel: str) -> None:
        super().__init__(value.permute(0, 2, 3, 1).unsqueeze(1))
        self.radius, self.kernel = radius, kernel

    def rows(self, images: slice, rows: slice, columns: slice, part: str = "both") -> Tensor:
        weights = explicit_attention_rows(*self.size, self.radius, self.kernel, rows, columns)
        return weights.expand(len(self.values[images]), 1, *weights.shape)


def _pool(x: Tensor, stride: int) -> Tensor:
    return x if stride == 1 else average_pool(x, stride)


def _radius(log_radius: Tensor) -> Tensor:
    return upcast(log_radius).clamp(-30, 30).exp()  # far beyond any map, well inside float32


def _attend(value: Tensor, log_radius: Tensor, kernel: str) -> Tensor:
    return explicit_attention(value, _radius(log_radius), kernel)


# Symbolic tracing keeps these whole: they look at shapes.
torch.fx.wrap("feature_map")
torch.fx.wrap("_attend")
torch.fx.wrap("upsample_to_stride")
torch.fx.wrap("average_pool")
