"""Position-wise attention: a gate with a value of its own at every position, the counterpart of CRAM."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from foveate._checks import feature_map, integer
from foveate._shapes import FeatureMap, Gate
from foveate.functional.positionwise import positionwise_map
from foveate.nn.spatial_attention import GatedAttention

__all__ = ["PositionwiseAttention2d"]


class PositionwiseAttention2d(GatedAttention):
    """Multiply a feature map by a gate predicted for each position, ``x ⊙ σ(w · relu(W x))``.

    Two 1×1 convolutions, at the cost of `RectangularAttention2d`'s head. The second starts at zero with a bias of
    ``INITIAL_LOGIT``, so that a module inserted in a trained network lets nearly everything pass.

    Source: the position-wise counterpart of arXiv 2503.10875; its head is not known here, this one was chosen.

    Args:
        dim: Channels of the feature map.
        hidden: Channels between the two convolutions; ``max(16, dim // 32)`` by default, as in
            `RectangularAttention2d`.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Examples:
        >>> foveate.nn.PositionwiseAttention2d(8).attention_map(torch.randn(1, 8, 1, 3))
        tensor([[[[0.9526, 0.9526, 0.9526]]]], grad_fn=<SigmoidBackward0>)
    """

    title = "Position-wise attention: a gate at each position"
    description = "Each position has a gate of its own, predicted from the image: at 1 all passes, at 0 nothing."

    INITIAL_LOGIT = 3.0  # σ(3) = 0.953

    def __init__(
        self,
        dim: int,
        *,
        hidden: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dim = integer("dim", dim)
        self.hidden = integer("hidden", max(16, dim // 32) if hidden is None else hidden)
        self.reduce = nn.Conv2d(dim, self.hidden, 1, **dd)
        self.act = nn.ReLU(inplace=True)
        self.score = nn.Conv2d(self.hidden, 1, 1, **dd)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the reduction anew, and open the gate."""
        nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="relu")
        nn.init.zeros_(self.score.weight)
        for conv, start in ((self.reduce, 0.0), (self.score, self.INITIAL_LOGIT)):
            assert conv.bias is not None  # both are built with one
            nn.init.constant_(conv.bias, start)

    def attention_map(self, x: FeatureMap) -> Gate:
        """Return the gate, in [0, 1], of at least float32."""
        feature_map(x, self.dim, "PositionwiseAttention2d")
        return positionwise_map(self.score(self.act(self.reduce(x))))

    def extra_repr(self) -> str:
        """Describe the module."""
        return f"{self.dim}, hidden={self.hidden}"


for _name in ("feature_map", "positionwise_map"):  # symbolic tracing keeps these whole
    torch.fx.wrap(_name)
