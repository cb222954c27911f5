"""Segmentation networks: decoders of segmentation_models_pytorch on any network of timm's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import _checks, _extras
from foveate.models.dense.keywords import keywords_of
from foveate.models.dense.pyramid import Pyramid, dilatable
from foveate.models.inspection import FAILURES, without_decay

__all__ = ["DECODERS", "Segmenter", "build_segmenter"]

GIVEN = ("classes", "in_channels", "encoder_output_stride", "upsampling", "activation", "aux_params")
"""Keywords that follow from the network and the task, which is of logits."""

DECODERS: Mapping[str, str] = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "fpn": "FPN",
    "deeplabv3plus": "DeepLabV3Plus",
    "segformer": "Segformer",
    "upernet": "UPerNet",
}
"""Decoders by the names of ``--decoder``, and their classes in segmentation_models_pytorch."""

STACKED = ("unet", "unetplusplus")
"""Decoders with a list of channels, one number for each doubling of the resolution."""
UNET_CHANNELS = (256, 128, 64, 32, 16)
COARSEST = 16
"""Largest reduction that DeepLabV3+ takes."""


class Segmenter(nn.Module):
    """A segmentation network: from images ``(B, 3, H, W)`` of any size to logits ``(B, classes, H, W)``.

    Images whose sides are no multiples of the largest reduction are padded with zeros at the right and at the bottom,
    and the logits there are left off.

    Args:
        model: What segmentation_models_pytorch has built: ``encoder``, ``decoder`` and ``segmentation_head``.
        divisor: What the sides of its images have to be multiples of.
    """

    def __init__(self, model: nn.Module, divisor: int) -> None:
        super().__init__()
        self.model = model
        self.divisor = divisor

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the radii, relative tables and embeddings, whose zero means something."""
        return without_decay(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of every pixel."""
        height, width = images.shape[-2:]
        padding = (0, -width % self.divisor, 0, -height % self.divisor)
        if not torch.compiler.is_compiling():
            padded = F.pad(images, padding) if any(padding) else images
            logits = self.model(padded)
            if not torch.jit.is_tracing() and logits.shape[-2:] != padded.shape[-2:]:
                raise ValueError(
                    f"the decoder makes {tuple(logits.shape[-2:])} of images of {tuple(padded.shape[-2:])}"
                )
            return logits[..., :height, :width]
        # A slice would leave a guard in the graph: that the image of the tracing was padded, and so must all others be.
        rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
        return self.model(F.pad(images, padding)).index_select(-2, rows).index_select(-1, columns)


class _Encoder(nn.Module):
    """A `Pyramid` with the interface of the encoders of segmentation_models_pytorch."""

    def __init__(self, pyramid: Pyramid, in_chans: int, **_: Any) -> None:
        super().__init__()
        self.pyramid = pyramid
        self._own_first = pyramid.reductions[0] == 1
        # The library counts maps from reduction 1: the image itself where the network has none so fine, and maps
        # without channels between it and the first of the network.
        missing = 0 if self._own_first else pyramid.reductions[0].bit_length() - 2
        self._missing = missing
        self.out_channels = [*([] if self._own_first else [in_chans]), *([0] * missing), *pyramid.channels]
        self.output_stride = pyramid.reductions[-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.pyramid(images)
        if self._own_first:
            return maps
        empty = [
            images.new_empty(images.shape[0], 0, *(side // 2 ** (k + 1) for side in images.shape[-2:]))
            for k in range(self._missing)
        ]
        return [images, *empty, *maps]

    def set_in_channels(self, *_: Any, **__: Any) -> None:
        """Leave the channels: the network was built for them."""

    def make_dilated(self, *_: Any) -> None:
        """Leave the strides: the network was built with them."""


def build_segmenter(
    name: str,
    kwargs: Mapping[str, Any],
    *,
    num_classes: int,
    decoder: str = "unet",
    decoder_args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
) -> Segmenter:
    """Build a segmentation network from a network of timm's and a decoder of segmentation_models_pytorch.

    DeepLabV3+ needs maps at a sixteenth at most: later stages are dilated where the network allows it
    (``output_stride``), else left out. U-Nets get as many levels as there are maps, with 256, 128, 64, 32, 16 channels
    from the coarsest on unless ``decoder_args`` says otherwise.

    Args:
        name: Name of the network, any that timm knows.
        kwargs: Keywords of `timm.create_model`.
        num_classes: Number of classes.
        decoder: One of `DECODERS`.
        decoder_args: Keywords of the decoder, such as ``{"decoder_channels": [64, 32, 16]}``.
        pretrained: Start from the weights that timm has for the network, fetched if need be.

    Raises:
        ValueError: The network has no suitable maps, or the decoder does not take them or the keywords.
        MissingExtraError: The extra ``dense`` is not installed.
    """
    _checks.one_of("decoder", decoder, tuple(DECODERS))
    smp = _extras.require("segmentation_models_pytorch", extra="dense")
    encoders = smp.encoders.encoders
    given = dict(decoder_args or {})
    known = keywords_of(
        getattr(smp, DECODERS[decoder]), but=(*GIVEN, "encoder_name", "encoder_depth", "encoder_weights")
    )
    for keyword in given:
        _checks.one_of(f"keyword of decoder {decoder}", keyword, known)
    _checks.integer("num_classes", num_classes)
    pyramid, own = _maps(name, kwargs, decoder, pretrained)
    encoder = _Encoder(pyramid, kwargs.get("in_chans", 3))
    depth = len(encoder.out_channels) - 1
    if decoder in STACKED:
        own["decoder_channels"] = UNET_CHANNELS[:depth]
    if decoder == "fpn":  # it makes what the fourth map from the end is made of
        own["upsampling"] = 2 ** (depth - 3)
    key = f"foveate-{id(encoder)}"  # an entry in the library's table, its own way to encoders of others, for the moment
    encoders[key] = {"encoder": partial(_same, encoder), "params": {}, "pretrained_settings": {}}
    try:
        model = getattr(smp, DECODERS[decoder])(
            key, encoder_depth=depth, encoder_weights=None, classes=num_classes, **{**own, **given}
        )
    except (ValueError, *FAILURES) as error:
        raise ValueError(
            f"decoder {decoder} cannot be built on {name}, whose maps are reduced by "
            f"{', '.join(map(str, pyramid.reductions))}, with {given or 'no keywords of its own'}: {error}"
        ) from error
    finally:
        del encoders[key]
    for module in model.modules():
        if type(module).__name__ == "ASPPPooling":  # of DeepLabV3+: convolution, normalization, … of one mean an image
            module[2] = _norm_of_few(module[2])
    return Segmenter(model, pyramid.reductions[-1])


class _NormOfFew(nn.BatchNorm2d):
    """Batch normalization that takes a batch of one value by its running statistics: it has no variance."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(input, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(input)


def _norm_of_few(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    made = _NormOfFew(norm.num_features, norm.eps, norm.momentum)
    made.load_state_dict(norm.state_dict())
    return made


def _same(encoder: nn.Module, **_: Any) -> nn.Module:
    return encoder


def _maps(name: str, kwargs: Mapping[str, Any], decoder: str, pretrained: bool) -> tuple[Pyramid, dict[str, Any]]:
    """Return the maps that a decoder takes, and what it has to be told of them."""
    pyramid = Pyramid(name, kwargs, pretrained=pretrained)
    if decoder != "deeplabv3plus":
        return pyramid, {}
    if pyramid.reductions[-1] > COARSEST:
        if dilatable(name, kwargs, COARSEST):
            pyramid = Pyramid(name, kwargs, pretrained=pretrained, output_stride=COARSEST)
        else:
            maps = zip(pyramid.out_indices, pyramid.reductions, strict=True)
            kept = [index for index, reduction in maps if reduction <= COARSEST]
            pyramid = Pyramid(name, kwargs, pretrained=pretrained, out_indices=kept)
    return pyramid, {"encoder_output_stride": pyramid.reductions[-1]}
