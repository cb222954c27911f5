"""Networks by name with what stands on them: a classifier, a decoder or a detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from foveate import _checks
from foveate.models.building import create_network, keywords, sized
from foveate.models.dense.detector import DETECTORS, Detector, build_detector
from foveate.models.dense.segmenter import DECODERS, Segmenter, build_segmenter

__all__ = ["build_with_head", "create_with_head", "seen_size"]


def seen_size(network: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of what a network sees of images of ``size``.

    `Segmenter` and `Detector` pad their images at the right and at the bottom, to multiples of their divisor; so do
    they within another module, or compiled.
    """
    divisor = next((part.divisor for part in network.modules() if isinstance(part, Segmenter | Detector)), 1)
    return size[0] + -size[0] % divisor, size[1] + -size[1] % divisor


def build_with_head(
    name: str,
    head: str = "",
    *,
    num_classes: int,
    in_chans: int = 3,
    img_size: tuple[int, int],
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    head_args: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Create the network ``name`` for given images; return it and the keywords used.

    Only networks with the keyword ``img_size`` (those with global attention or position embeddings) are given it; plain
    convolutional networks take images of any size.

    Args:
        name: Name of the network, any that timm knows.
        head: ``""`` for a classifier, else one of `DECODERS` or `DETECTORS`.
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Height and width of the images.
        pretrained: Start from the weights that timm has for the network, fetched if need be.
        model_args: Further keywords of the network.
        head_args: Keywords of the decoder or detector.

    Raises:
        ValueError: There is no such network or head, or it does not take the keywords.
    """

    def build(size: tuple[int, int]) -> tuple[nn.Module, dict[str, Any]]:
        return sized(
            lambda given: create_with_head(
                name, given, head, head_args=head_args, img_size=img_size, pretrained=pretrained
            ),
            keywords(num_classes, in_chans, model_args),
            size,
        )

    network, kwargs = build(img_size)
    seen = seen_size(network, img_size)
    if seen != img_size and kwargs.get("img_size") == img_size:
        return build(seen)  # what the network sees, where its tables have to end
    return network, kwargs


def create_with_head(
    name: str,
    kwargs: Mapping[str, Any],
    head: str = "",
    *,
    img_size: tuple[int, int],
    head_args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Create the network ``name`` with the keywords that `build_with_head` has returned.

    Raises:
        ValueError: There is no such network or head, or it does not take the keywords.
    """
    if not head:
        if head_args:
            raise ValueError(
                f"head_args are for decoders and detectors; a classifier takes none, got {dict(head_args)}"
            )
        return create_network(name, kwargs, pretrained=pretrained)
    _checks.one_of("head", head, (*DECODERS, *DETECTORS))
    num_classes = kwargs["num_classes"]
    if head in DECODERS:
        return build_segmenter(
            name, kwargs, num_classes=num_classes, decoder=head, decoder_args=head_args, pretrained=pretrained
        )
    return build_detector(
        name,
        kwargs,
        num_classes=num_classes,
        img_size=img_size,
        detector=head,
        detector_args=head_args,
        pretrained=pretrained,
    )
