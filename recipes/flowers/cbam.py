"""CBAM's spatial gate in EfficientNet-Lite0, ``cbam_tf_efficientnet_lite0``, which the library does not have itself.

``foveate --import recipes.flowers.cbam compare …`` makes it known; it is trained, compared and explained as the others.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.layers.cbam import SpatialAttn
from torch import Tensor, nn

import foveate
from foveate.models.packaged import packaged_weights

BASE = "tf_efficientnet_lite0"


class SpatialGate(foveate.nn.GatedAttention):
    """Multiply a feature map by a gate from the mean and the maximum of its channels (timm's `SpatialAttn`).

        x ⊙ σ(norm(conv7×7[mean_c x, max_c x]))

    Source: Woo et al. 2018 (arXiv 1807.06521), section 3: the spatial half of CBAM.

    Args:
        dim: Channels of the feature map; any, since the gate sees their mean and maximum alone.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
    """

    title = "CBAM's spatial gate"
    description = "Each position has a gate, from the mean and the maximum of the channels around it."

    def __init__(self, dim: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.gate = SpatialAttn(device=device, dtype=dtype)

    def attention_map(self, x: Tensor) -> Tensor:
        """Return the gate ``(B, 1, H, W)``."""
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return self.gate.gate(self.gate.conv(pooled))


@timm.models.register_model
def cbam_tf_efficientnet_lite0(pretrained: bool = False, at: int | str = -2, **kwargs: Any) -> nn.Module:
    """Build EfficientNet-Lite0 with the gate behind the stage ``at``, on the weights of the extra ``photos``."""
    if pretrained:
        kwargs["pretrained_cfg_overlay"] = {"state_dict": packaged_weights(BASE)}
    return foveate.insert(timm.create_model(BASE, pretrained=pretrained, **kwargs), SpatialGate, at=at)
