"""Convolutional rectangular attention (CRAM): attend to one soft, oriented rectangle."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate._checks import feature_map, integer, number
from foveate._shapes import FeatureMap, Float, Gate, Rectangles
from foveate.functional._precision import autocast_off, upcast
from foveate.functional.rectangle import draw_rectangles, pixel_centers, rectangle_map
from foveate.functional.similarity import rectangle_distance, transform_points
from foveate.nn.spatial_attention import GatedAttention, Observation, mean_where, on_cpu

__all__ = ["RectangularAttention2d"]


class RectangularAttention2d(GatedAttention):
    """Multiply a feature map by one soft rectangle, ``x ⊙ A``, given by five numbers that it predicts from the map.

        A(p) = σ(τ(s_x − |u|)) · σ(τ(s_y − |v|))

    with ``(u, v)`` the coordinates in the rectangle's frame; see `foveate.functional.rectangle_map`.

    The head reads *where* things are before it averages, so that the rectangle can follow them: a 1×1 convolution
    to ``hidden`` score maps, the spatial softmax of each, its first and second moments (mean position and spread),
    and a linear readout. The readout starts at zero with a rectangle that covers the map, so that a module
    inserted in a trained network lets nearly everything pass.

    Source: Nguyen et al. 2025 (arXiv 2503.10875), of which a rectangle of five numbers is stated. The formula of its
    map and the head are not known here; these were chosen (spatial softmax: Levine et al. 2016, arXiv 1504.00702).

    Args:
        dim: Channels of the feature map.
        sharpness: ``τ > 0``: steepness of the edges, in units of 1 / half the side of the map.
        hidden: Score maps in the head; ``max(16, dim // 32)`` by default.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Examples:
        >>> module = foveate.nn.RectangularAttention2d(8)  # at first the rectangle covers the whole map
        >>> module.rectangle(torch.randn(1, 8, 5, 7)).round(decimals=4).tolist()
        [[0.0, 0.0, 1.600000023841858, 1.600000023841858, 0.0]]
    """

    title = "CRAM: one rectangle"
    description = (
        "For each image the network predicts one soft rectangle from five numbers. What lies inside passes, what lies "
        "outside is dimmed."
    )

    INITIAL_HALF_SIZE = 1.6
    __constants__ = ("INITIAL_HALF_SIZE",)

    def __init__(
        self,
        dim: int,
        *,
        sharpness: float = 5.0,
        hidden: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dim = integer("dim", dim)
        self.sharpness = number("sharpness", sharpness, above=0)
        self.hidden = integer("hidden", max(16, dim // 32) if hidden is None else hidden)
        self.score = nn.Conv2d(dim, self.hidden, 1, bias=False, **dd)
        self.readout = _Readout(5 * self.hidden, 5, **dd)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the score maps anew, and let the rectangle cover the whole map."""
        nn.init.kaiming_normal_(self.score.weight, nonlinearity="linear")
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def rectangle(self, x: FeatureMap) -> Rectangles:
        """Predict a rectangle for each image, in at least float32.

        Center ``(c_x, c_y)`` in [−1, 1]², half-sizes ``(s_x, s_y) > 0`` in the same units (a half-size of 1 spans
        the map), angle ``α`` in radians, any real number: it has period π, and ``(s_x, s_y, α)`` is the same
        rectangle as ``(s_y, s_x, α + π/2)``.
        """
        feature_map(x, self.dim, "RectangularAttention2d")
        return _rectangle(self.readout(_spatial_moments(self.score(x))), self.INITIAL_HALF_SIZE)

    def attention_map(self, x: FeatureMap) -> Gate:
        """Return the gate ``A``, in [0, 1], of at least float32."""
        return _draw(self.rectangle(x), x, self.sharpness)

    @torch.jit.unused
    def observe(self, x: FeatureMap) -> Observation:
        """Return the gate and the rectangle that it is drawn from."""
        rectangle = self.rectangle(x)
        gate = on_cpu(_draw(rectangle, x, self.sharpness)[:, 0])
        return Observation(gate=gate, rectangle=on_cpu(rectangle), sharpness=self.sharpness)

    @torch.jit.unused
    def equivariance_loss(
        self,
        x: Float[Tensor, "batch channels height width"],
        moved_x: Float[Tensor, "batch channels height width"],
        similarity: Float[Tensor, "batch 4"],
        *,
        aspect: float = 1.0,
    ) -> Float[Tensor, ""]:
        """Return the mean of ``d²(T(rectangle), rectangle of T(image))``, see `foveate.functional.rectangle_distance`.

        Images whose rectangle's center ``T`` carries out of the image are left out: its object may be gone. A fixed
        rectangle does not make the loss zero, so its size cannot be compared with that of other gates. Arguments as in
        `GatedAttention.equivariance_loss`.
        """
        rectangle = self.rectangle(x)
        distance = rectangle_distance(rectangle, self.rectangle(moved_x), similarity=similarity, aspect=aspect)
        center = transform_points(rectangle[:, :2].detach(), similarity, aspect=aspect)
        return mean_where(distance, (center.abs() <= 1).all(1))

    def extra_repr(self) -> str:
        """Describe the module."""
        return f"{self.dim}, sharpness={self.sharpness:g}, hidden={self.hidden}"


class _Readout(nn.Linear):
    """A linear layer that computes in the dtype of its input, also under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight, self.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if torch.jit.is_scripting():
        return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))
    else:  # noqa: RET505
        with autocast_off(x):
            return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


def _rectangle(raw: Tensor, half_size: float) -> Tensor:
    if torch.jit.is_scripting():
        return _to_rectangle(upcast(raw), half_size)
    else:  # noqa: RET505
        with autocast_off(raw):
            return _to_rectangle(upcast(raw), half_size)


def _to_rectangle(raw: Tensor, half_size: float) -> Tensor:
    center, size, angle = raw.split([2, 2, 1], dim=1)
    covering = math.log(math.expm1(half_size))  # softplus⁻¹
    return torch.cat([center.tanh(), F.softplus(size + covering), angle], dim=1)


def _spatial_moments(scores: Tensor) -> Tensor:
    if torch.jit.is_scripting():
        return _moments(upcast(scores))
    else:  # noqa: RET505
        with autocast_off(scores):
            return _moments(upcast(scores))


def _moments(scores: Tensor) -> Tensor:
    """Return the means of x, y, x², xy, y² under the spatial softmax of each score map, ``(B, 5·hidden)``.

    The moments of a flat map are subtracted: a map without a peak leaves the rectangle where the biases put it, and
    training cannot move all rectangles by features that never change.
    """
    height, width = scores.shape[2:]
    weights = scores.flatten(2).softmax(-1) - 1 / (height * width)  # B, hidden, N
    x = pixel_centers(width, scores).expand(height, width).flatten()  # of all positions, N
    y = pixel_centers(height, scores)[:, None].expand(height, width).flatten()
    return torch.matmul(weights, torch.stack([x, y, x * x, x * y, y * y], dim=-1)).flatten(1)


def _draw(rectangle: Tensor, x: Tensor, sharpness: float) -> Tensor:
    if torch.jit.is_scripting():  # which knows neither checks nor autocast
        rows, columns = pixel_centers(x.shape[2], rectangle), pixel_centers(x.shape[3], rectangle)
        return draw_rectangles(rectangle, columns, rows, sharpness)
    else:  # noqa: RET505  # what comes after a `return` would be scripted
        return rectangle_map(rectangle, x.shape[2], x.shape[3], sharpness=sharpness)


# Symbolic tracing keeps these whole: they look at shapes.
for _name in ("feature_map", "_spatial_moments", "_linear", "_rectangle", "_draw"):
    torch.fx.wrap(_name)
