"""ResNets of bottlenecks whose 3×3 convolutions are replaced, block by block, by attention."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from foveate._checks import integer, one_of, pair
from foveate.models.inspection import attention_modules
from foveate.models.stem import RESNET, timm_output_stride, use_small_stem
from foveate.models.tables import relative_tables, resize_relative_tables
from foveate.nn import AttentionAugmentedConv2d, ExpAttConv2d, GlobalSelfAttention2d, SpatialAttention

__all__ = [
    "AttentionResNet",
    "augmented",
    "convolution",
    "explicit",
    "global_self",
]


Replace = Callable[..., nn.Module]
"""Makes the module that takes a convolution's place: ``replace(stage, convolution, feat_size, **options)``."""

LAST_THREE = (2, 3, 4)


class AttentionResNet(ResNet):
    """timm's ResNet of bottlenecks, with attention in place of the 3×3 convolutions.

    Everything else is timm's own: stem, shortcuts, normalization, head, feature extraction, checkpointing.

    Args:
        replace: One of `convolution`, `explicit`, `global_self`, `augmented`, or a function of the same form.
        stem: ``imagenet`` (7×7 with stride 2, then max-pooling) or ``small`` (3×3 with stride 1, no pooling), for
            images of 32 to 64 pixels.
        img_size: Height and width of the training images, which set the size of relative tables. Images of any
            size are accepted afterwards.
        attention: Options of the attention, passed on to ``replace``.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
        **kwargs: As `timm.models.resnet.ResNet`: ``layers``, ``channels``, ``num_classes``, ``in_chans``, …

    Examples:
        >>> from foveate.models.attention_net import explicit
        >>> network = foveate.models.AttentionResNet(explicit, layers=(1, 1, 1, 1), stem="small", num_classes=5)
        >>> network(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        replace: Replace,
        *,
        stem: str = "imagenet",
        img_size: int | tuple[int, int] = 224,
        attention: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        one_of("stem", stem, ("imagenet", "small"))
        size = pair("img_size", img_size)
        if stem == "small" and "output_stride" in kwargs:
            kwargs["output_stride"] = timm_output_stride(kwargs["output_stride"], RESNET)
        super().__init__(Bottleneck, device=device, dtype=dtype, **kwargs)  # type: ignore[arg-type]
        if stem == "small":
            use_small_stem(self)
        else:
            size = _halved(_halved(size))
        for stage in range(4):
            for block in self.get_submodule(f"layer{stage + 1}").children():
                conv: nn.Conv2d = block.conv2  # type: ignore[assignment]
                if conv.groups != 1 and replace is not convolution:
                    raise ValueError(f"cardinality={conv.groups} has no meaning for attention; leave it at 1")
                block.conv2 = replace(stage, conv, size, device=device, dtype=dtype, **(attention or {}))
                size = _halved(size) if block.stride == 2 else size  # of the convolution, or of a pooling behind it

    @torch.jit.ignore
    def init_weights(self, zero_init_last: bool = True) -> None:
        """Initialize all weights: the convolutions as timm does, the attention as its modules do."""
        super().init_weights(zero_init_last=zero_init_last)
        done: set[nn.Module] = set()
        for name, module in self.named_modules():  # no attention yet when timm's constructor comes here
            instead = name.endswith(".conv2") and not isinstance(module, nn.Conv2d)
            if module not in done and (instead or isinstance(module, SpatialAttention)):
                done.update(module.modules())
                if reset := getattr(module, "reset_parameters", None):
                    reset()

    @torch.jit.ignore
    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Fit the relative tables, if there are any, to images of ``img_size``; see `resize_relative_tables`."""
        if relative_tables(self):
            resize_relative_tables(self, img_size)

    @torch.jit.ignore
    def note_input_size(self, img_size: tuple[int, int]) -> None:
        """Note what images the tables are for: timm writes it beside weights that it saves, and builds by it again."""
        with contextlib.suppress(ImportError):  # before timm 1.0.31
            from timm.models._input import update_model_input_size

            update_model_input_size(self, img_size)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the radii and relative tables, whose zero means something."""
        return {f"{name}.{own}" for name, module in attention_modules(self).items() for own in module.no_weight_decay()}


def convolution(stage: int, conv: nn.Conv2d, feat_size: tuple[int, int], **factory: Any) -> nn.Module:
    """Leave the convolution: the convolutional counterpart of the others."""
    return conv


def explicit(
    stage: int,
    conv: nn.Conv2d,
    feat_size: tuple[int, int],
    *,
    stages: Sequence[int] = LAST_THREE,
    half_resolution: bool = False,
    **options: Any,
) -> nn.Module:
    """Put `ExpAttConv2d` in the last three stages (Tan et al. 2021), or in others of the four.

    With ``half_resolution`` it attends where `augmented` does.
    """
    if not _attends(stage, stages):
        return conv
    return ExpAttConv2d(
        conv.in_channels,
        conv.out_channels,
        stride=conv.stride[0],
        dilation=conv.dilation[0],
        downsample=half_resolution and stage < 2,
        **options,
    )


def global_self(
    stage: int, conv: nn.Conv2d, feat_size: tuple[int, int], *, stages: Sequence[int] = (1, 2, 3, 4), **options: Any
) -> nn.Module:
    """Put `GlobalSelfAttention2d` everywhere, or in some stages.

    Where the convolution strides, 2×2 pooling follows (Shen et al. 2020). Its extent is global, so the dilation that
    timm's ``output_stride`` brings changes nothing.
    """
    if not _attends(stage, stages):
        return conv
    return GlobalSelfAttention2d(
        conv.in_channels, conv.out_channels, feat_size=feat_size, stride=conv.stride[0], **options
    )


def augmented(
    stage: int,
    conv: nn.Conv2d,
    feat_size: tuple[int, int],
    *,
    stages: Sequence[int] = LAST_THREE,
    half_resolution: bool = True,
    **options: Any,
) -> nn.Module:
    """Put `AttentionAugmentedConv2d` in the last three stages (Bello et al. 2019), or in others of the four.

    In the second stage, and in the first if it is among them, it attends at half resolution, unless
    ``half_resolution=False``.
    """
    if not _attends(stage, stages):
        return conv
    downsample = half_resolution and stage < 2
    attended = _halved(feat_size) if conv.stride[0] == 2 else feat_size
    return AttentionAugmentedConv2d(
        conv.in_channels,
        conv.out_channels,
        feat_size=_halved(attended) if downsample else attended,
        stride=conv.stride[0],
        dilation=conv.dilation[0],
        downsample=downsample,
        **options,
    )


def _attends(stage: int, stages: Sequence[int]) -> bool:
    """Tell whether the stage of this index is among ``stages``, which are counted from 1."""
    if isinstance(stages, str) or not isinstance(stages, Sequence) or not stages:
        raise ValueError(f"stages must be a list of stages with attention, such as [3, 4]; got {stages!r}")
    return stage + 1 in [one_of("stages", integer("stages", number), (1, 2, 3, 4)) for number in stages]


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2
