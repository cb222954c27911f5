"""Position-wise attention: CRAM's counterpart, a gate with a value of its own at every position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveate._checks import feature_map, integer
from foveate.functional._precision import widen
from foveate.functional.positionwise import positionwise_map
from foveate.nn.spatial_attention import GatedAttention

__all__ = ["PositionwiseAttention2d"]


class PositionwiseAttention2d(GatedAttention):
    """Multiply a feature map by a gate predicted for each position, ``x ⊙ σ(w · relu(W x))``.

    Two 1×1 convolutions, at the cost of `RectangularAttention2d`'s head. The second starts at zero with a bias of
    ``INITIAL_LOGIT``, so that a module inserted in a trained network lets nearly everything pass.

    Source: the position-wise counterpart of arXiv 2503.10875; the paper leaves its head open.

    Args:
        dim: Channels of the feature map.
        hidden: Channels between the two convolutions; ``max(16, dim // 32)`` by default, as in
            `RectangularAttention2d`.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: An argument is out of its range.
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

    def attention_map(self, x: Tensor) -> Tensor:
        """Return the gate, ``(B, 1, H, W)`` in [0, 1], of at least float32."""
        if torch.jit.is_scripting():  # which knows neither the check nor autocast
            return widen(self.score(self.act(self.reduce(x)))).sigmoid()
        else:  # noqa: RET505  # what comes after a `return` would be scripted
            feature_map(x, self.dim, "PositionwiseAttention2d")
            return positionwise_map(self.score(self.act(self.reduce(x))))

    def extra_repr(self) -> str:
        """Describe the module."""
        return f"{self.dim}, hidden={self.hidden}"


for _name in ("feature_map", "positionwise_map"):  # symbolic tracing keeps these whole
    torch.fx.wrap(_name)
