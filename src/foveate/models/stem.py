"""Stem for small images: one 3×3 convolution with stride 1, and no pooling."""

from __future__ import annotations

from typing import Any

from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import ResNet
from torch import nn

from foveate import _checks

__all__ = ["timm_output_stride", "use_small_stem"]

RESNET, MOBILE = 4, 2
"""How much less the small stem reduces images than timm's, in a ResNet and in the other two families."""


def timm_output_stride(output_stride: int, factor: int) -> int:
    """Return what timm has to be told for a largest reduction of ``output_stride`` with the small stem.

    Args:
        output_stride: Of images, as everywhere; later stages dilate their convolutions rather than stride.
        factor: How much less the small stem reduces.

    Raises:
        ValueError: It is not 8, 16 or 32, which timm has, divided by ``factor``.
    """
    return factor * _checks.one_of(
        "output_stride with stem='small'", output_stride, tuple(stride // factor for stride in (8, 16, 32))
    )


def use_small_stem(model: nn.Module) -> None:
    """Change a timm ResNet, EfficientNet or MobileNetV3 to keep the resolution of images of 32 to 64 pixels.

    A ResNet's 7×7 convolution with stride 2 and its pooling give way to a 3×3 convolution with stride 1; the other
    two, whose stem is a 3×3 convolution already, lose its stride.
    """
    feature_info: list[dict[str, Any]] = getattr(model, "feature_info", [])
    if isinstance(model, ResNet):
        first = next(module for module in model.conv1.modules() if isinstance(module, nn.Conv2d))
        factory: dict[str, Any] = {"device": first.weight.device, "dtype": first.weight.dtype}
        width = feature_info[0]["num_chs"]
        conv = nn.Conv2d(first.in_channels, width, 3, padding=1, bias=False, **factory)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        # By name, for the type checker: timm declares the stem's parts more narrowly than it uses them.
        model.register_module("conv1", conv)
        model.register_module("maxpool", nn.Identity())
        reductions = [1] + [info["reduction"] // RESNET for info in feature_info[1:]]
    elif isinstance(model, EfficientNet | MobileNetV3):
        model.conv_stem.stride = (1, 1)
        reductions = [info["reduction"] // MOBILE for info in feature_info]
    else:
        raise ValueError(
            f"stem='small' is defined for ResNet, EfficientNet and MobileNetV3; got {type(model).__name__}"
        )
    for info, reduction in zip(feature_info, reductions, strict=True):
        info["reduction"] = reduction
