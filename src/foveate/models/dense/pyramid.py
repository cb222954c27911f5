"""Feature pyramid of any network of timm's: one map for each power of two by which images are reduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from foveate.models.building import create_network
from foveate.models.inspection import FAILURES

__all__ = ["Pyramid", "dilatable"]


class Pyramid(nn.Module):
    """The maps of a network of timm's, the last one at each reduction.

    Args:
        name: Name of the network.
        kwargs: Keywords of `timm.create_model`.
        pretrained: Start from the weights that timm has, fetched if need be.
        output_stride: Largest reduction: later stages dilate their convolutions rather than stride.
        out_indices: Which maps of the network, as timm counts them; the stages behind the last one are not built. Not
            given: all.

    Raises:
        ValueError: There is no such network, it has no maps, it does not take these keywords, or its maps are not
            reduced by powers of two.

    Examples:
        >>> pyramid = Pyramid("gsa_resnet_tiny", {"img_size": 32})
        >>> pyramid.reductions, pyramid.channels
        ([1, 2, 4, 8], [32, 96, 192, 384])
        >>> [tuple(x.shape[2:]) for x in pyramid(torch.randn(1, 3, 32, 48))]
        [(32, 48), (16, 24), (8, 12), (4, 6)]
    """

    def __init__(
        self,
        name: str,
        kwargs: Mapping[str, Any] | None = None,
        *,
        pretrained: bool = False,
        output_stride: int | None = None,
        out_indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        chosen = {"output_stride": output_stride, "out_indices": None if out_indices is None else tuple(out_indices)}
        keywords = _keywords(kwargs or {}) | {key: value for key, value in chosen.items() if value is not None}
        try:
            self.network = create_network(name, keywords, pretrained=pretrained)
            info: Any = self.network.feature_info
            reductions, channels = info.reduction(), info.channels()
        except FAILURES as error:
            raise ValueError(f"{name} gives no maps: {error}; use a convolutional network") from error
        last = {reduction: index for index, reduction in enumerate(reductions)}
        self.indices = sorted(last.values())
        chosen_maps = keywords.get("out_indices") or range(len(reductions))
        self.out_indices = [chosen_maps[index] for index in self.indices]  # as timm counts them
        self.reductions: list[int] = [reductions[index] for index in self.indices]
        self.channels: list[int] = [channels[index] for index in self.indices]
        first = self.reductions[0]
        if first & (first - 1) or any(b != 2 * a for a, b in zip(self.reductions, self.reductions[1:], strict=False)):
            raise ValueError(
                f"the maps of {name} are reduced by {', '.join(map(str, reductions))}; decoders and detectors need "
                "powers of two without a gap; use another network"
            )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of images ``(B, C, H, W)``, the finest first."""
        maps = self.network(images)
        return [maps[index] for index in self.indices]


def dilatable(name: str, kwargs: Mapping[str, Any], output_stride: int) -> bool:
    """Tell whether a network can be built with ``output_stride``."""
    try:
        with torch.device("meta"):
            network = timm.create_model(name, **_keywords(kwargs), output_stride=output_stride)
    except (ValueError, NotImplementedError, *FAILURES):
        return False
    info: Any = network.feature_info
    return max(info.reduction()) <= output_stride


def _keywords(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in kwargs.items() if key != "num_classes"}, "features_only": True}
