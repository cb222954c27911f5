"""Detectors: those of torchvision over a feature pyramid of any network of timm's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import initLevelMapper

from foveate import _checks
from foveate.functional._precision import autocasts
from foveate.models.dense.keywords import keywords_of
from foveate.models.dense.pyramid import Pyramid
from foveate.models.inspection import FAILURES, without_decay

__all__ = ["DETECTORS", "Detector", "build_detector"]

ANCHOR = 8
"""Side of the anchors of a map, in pixels of the map, as in Lin et al. 2017 (32 pixels at a reduction of 4)."""
CHANNELS = 256
"""Channels of the pyramid for which torchvision's initial weights are made."""
DISTANCE = 4.0
"""Initial distance to the sides of a box in FCOS, in pixels of the map, the middle of what a map is meant for (0 to 8).

It is what a rectifier leaves of a convolution. torchvision's bias of 0 has half of the positions begin without a
gradient, and at high learning rates soon all of them, for good.
"""
ASPECTS = (0.5, 1.0, 2.0)
OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Sizes of RetinaNet's anchors at a place, relative to `ANCHOR`."""


class Detector(nn.Module):
    """A detector of torchvision's that takes images as the loaders make them; see `build_detector`.

    In training mode the output is a dict of losses, in evaluation mode a list with a dict for each image: ``boxes``
    ``(n, 4)`` in pixels of the image, ``labels`` ``(n,)``, indices into the classes, ``scores`` ``(n,)`` and, of Mask
    R-CNN, ``masks`` ``(n, 1, H, W)``. Classes count from 0, as in all data of this library; in torchvision's R-CNNs
    they count from 1, with 0 for the background.

    Args:
        model: torchvision's detector, which does not resize nor normalize its images.
    """

    divisor = 32
    """What the sides of its images are padded to multiples of."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.first = int(isinstance(model, FasterRCNN))

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the radii, relative tables and embeddings, whose zero means something."""
        return without_decay(self)

    def forward(self, images: Tensor, targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """Return losses or detections for images ``(B, 3, H, W)``; ``targets`` are needed in training mode alone."""
        if self.training:
            if targets is None:
                raise ValueError("targets must be given in training mode, a dict for each image; or call eval() first")
            if isinstance(self.model, MaskRCNN) and not all("masks" in target for target in targets):
                raise ValueError(
                    "Mask R-CNN learns from masks, and there are targets without; use fasterrcnn for boxes"
                )
            return self.model(images, [_shifted(target, self.first) for target in targets])
        return [{**found, "labels": found["labels"] - self.first} for found in self.model(images)]


class _AsGiven(GeneralizedRCNNTransform):
    """torchvision's batching of images, without its normalization and resizing."""

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target


def _precise(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the type of coordinates beside features of ``dtype``: that, but for what autocast has made smaller."""
    return torch.promote_types(dtype, torch.float32) if autocasts(device) else dtype


class _Anchors(AnchorGenerator):
    """torchvision's anchors, in float32 where autocast makes the maps bfloat16: that would round them to pixels."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        super().set_cell_anchors(_precise(dtype, device), device)


class _BoxCoder(BoxCoder):
    """torchvision's boxes from regression, not rounded to the precision of the regression."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        return super().decode_single(rel_codes.to(_precise(rel_codes.dtype, rel_codes.device)), boxes)


class _BoxLinearCoder(BoxLinearCoder):
    """As `_BoxCoder`, of FCOS."""

    def decode(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        return super().decode(rel_codes.to(_precise(rel_codes.dtype, rel_codes.device)), boxes)


def _use_own_coders(model: nn.Module) -> None:
    for module in model.modules():
        coder = getattr(module, "box_coder", None)
        if isinstance(coder, BoxCoder):
            module.box_coder = _BoxCoder(coder.weights, coder.bbox_xform_clip)
        elif isinstance(coder, BoxLinearCoder):
            module.box_coder = _BoxLinearCoder(coder.normalize_by_size)


class _Backbone(nn.Module):
    """A `Pyramid` whose maps are brought to the same number of channels (Lin et al. 2017), with coarser ones added."""

    def __init__(self, pyramid: Pyramid, out_channels: int, extra: Any) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.fpn = FeaturePyramidNetwork(pyramid.channels, out_channels, extra_blocks=extra)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(level): x for level, x in enumerate(self.pyramid(images))})


def _faster_rcnn(pyramid: Pyramid, classes: int, channels: int, given: Mapping[str, Any]) -> nn.Module:
    return FasterRCNN(**_two_stages(pyramid, channels), num_classes=classes + 1, **given)


def _mask_rcnn(pyramid: Pyramid, classes: int, channels: int, given: Mapping[str, Any]) -> nn.Module:
    pool = _pool(pyramid, 14)
    return MaskRCNN(**_two_stages(pyramid, channels), num_classes=classes + 1, mask_roi_pool=pool, **given)


def _two_stages(pyramid: Pyramid, channels: int) -> dict[str, Any]:
    levels = [*pyramid.reductions, 2 * pyramid.reductions[-1]]
    sizes = tuple((ANCHOR * reduction,) for reduction in levels)
    return {
        "backbone": _Backbone(pyramid, channels, LastLevelMaxPool()),
        "rpn_anchor_generator": _Anchors(sizes, (ASPECTS,) * len(sizes)),
        "box_roi_pool": _pool(pyramid, 7),
    }


def _pool(pyramid: Pyramid, size: int) -> MultiScaleRoIAlign:
    """Return torchvision's pooling, told of the reductions: it would infer them from the first image, padded or not."""
    levels = [str(level) for level in range(len(pyramid.reductions))]
    pool = MultiScaleRoIAlign(levels, output_size=size, sampling_ratio=2)
    pool.scales = [1 / reduction for reduction in pyramid.reductions]
    first, last = (pyramid.reductions[end].bit_length() - 1 for end in (0, -1))
    pool.map_levels = initLevelMapper(first, last)
    return pool


def _one_stage(pyramid: Pyramid, channels: int, anchors: Sequence[float], aspects: Sequence[float]) -> dict[str, Any]:
    levels = [*pyramid.reductions, *(pyramid.reductions[-1] * 2**k for k in (1, 2))]
    sizes = tuple(tuple(round(reduction * anchor) for anchor in anchors) for reduction in levels)
    return {
        "backbone": _Backbone(pyramid, channels, LastLevelP6P7(channels, channels)),
        "anchor_generator": _Anchors(sizes, (tuple(aspects),) * len(sizes)),
    }


def _retinanet(pyramid: Pyramid, classes: int, channels: int, given: Mapping[str, Any]) -> nn.Module:
    # Half the anchors of Lin et al. 2017 at the finest map, as torchvision has them.
    anchors = [ANCHOR * octave for octave in OCTAVES]
    return RetinaNet(num_classes=classes, **(_one_stage(pyramid, channels, anchors, ASPECTS) | dict(given)))


def _fcos(pyramid: Pyramid, classes: int, channels: int, given: Mapping[str, Any]) -> nn.Module:
    # torchvision's FCOS has no anchors: it takes their size for the step of the map, by which it chooses the map of an
    # object and measures distances to its sides.
    own = _one_stage(pyramid, channels, (1,), (1,))
    steps: Any = own["anchor_generator"]
    steps.cell_anchors = [  # without rounding, by which a step of 1 would become 0
        torch.tensor([[-step / 2, -step / 2, step / 2, step / 2]]) for (step,) in steps.sizes
    ]
    model = FCOS(num_classes=classes, **(own | dict(given)))
    for norm in model.head.modules():
        if isinstance(norm, nn.GroupNorm):  # of one channel a group nothing is left where a map has one position
            norm.num_groups = min(norm.num_groups, norm.num_channels // 2)
    distances: Any = model.head.regression_head.bbox_reg
    with torch.no_grad():
        distances.bias.fill_(DISTANCE)
    return model


DETECTORS: Mapping[str, Callable[[Pyramid, int, int, Mapping[str, Any]], nn.Module]] = {
    "fasterrcnn": _faster_rcnn,
    "maskrcnn": _mask_rcnn,
    "retinanet": _retinanet,
    "fcos": _fcos,
}
"""Detectors by the names of ``--detector``."""
CLASSES = {"fasterrcnn": FasterRCNN, "maskrcnn": MaskRCNN, "retinanet": RetinaNet, "fcos": FCOS}
GIVEN = ("backbone", "num_classes")
"""Keywords of torchvision's classes that follow from the network and the task."""
IGNORED = ("min_size", "max_size", "image_mean", "image_std")
"""Those without effect: the loader resizes and normalizes."""


def build_detector(
    name: str,
    kwargs: Mapping[str, Any],
    *,
    num_classes: int,
    img_size: tuple[int, int],
    detector: str = "fasterrcnn",
    detector_args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
) -> Detector:
    """Build a detector of torchvision's over a feature pyramid of a network of timm's.

    All maps of the network from a reduction of 4 on are used, or all that it has if its coarsest is finer than 32;
    anchors are 8 pixels of their map large.

    Args:
        name: Name of the network, any that timm knows.
        kwargs: Keywords of `timm.create_model`.
        num_classes: Number of classes, without the background.
        img_size: Height and width of the images; any other is taken as well.
        detector: One of `DETECTORS`.
        detector_args: Keywords of torchvision's class, such as ``{"box_detections_per_img": 50}``, and ``channels``,
            those of the pyramid (256).
        pretrained: Start from the weights that timm has for the network, fetched if need be.

    Raises:
        ValueError: The network has no suitable maps, or the detector does not take the keywords.
    """
    _checks.one_of("detector", detector, tuple(DETECTORS))
    given = dict(detector_args or {})
    known = keywords_of(CLASSES[detector], but=(*GIVEN, *IGNORED))
    for keyword in given:
        _checks.one_of(f"keyword of detector {detector}", keyword, ("channels", *known))
    channels = _checks.integer("channels", given.pop("channels", CHANNELS))
    _checks.integer("num_classes", num_classes)
    img_size = _checks.pair("img_size", img_size)
    pyramid = Pyramid(name, kwargs, pretrained=pretrained)
    if pyramid.reductions[-1] >= 32:  # a map at half the resolution would make most of the boxes and of the cost
        maps = zip(pyramid.out_indices, pyramid.reductions, strict=True)
        coarse = [index for index, reduction in maps if reduction >= 4]
        pyramid = Pyramid(name, kwargs, pretrained=pretrained, out_indices=coarse)
    try:
        model = DETECTORS[detector](pyramid, num_classes, channels, given)
    except (ValueError, *FAILURES) as error:
        raise ValueError(f"detector {detector} does not take {given or 'these maps'}: {error}") from error
    _scale_initial_weights(model, channels)
    _use_own_coders(model)
    model.transform = _AsGiven(min(img_size), max(img_size), [0.0] * 3, [1.0] * 3)
    return Detector(model)


@torch.no_grad()
def _scale_initial_weights(model: nn.Module, channels: int) -> None:
    """Scale the initial weights of the heads' convolutions so that signals are as large as with 256 channels.

    torchvision draws them with a deviation of 0.01, whatever the channels: with 32, four layers make a signal 60 times
    smaller, and RetinaNet does not begin to learn.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith(("head.", "rpn.head.")) and module.in_channels == channels:
            module.weight.mul_((CHANNELS / channels) ** 0.5)


def _shifted(target: Mapping[str, Tensor], first: int) -> dict[str, Tensor]:
    kept = ~target["ignored"] if "ignored" in target else torch.ones_like(target["labels"], dtype=torch.bool)
    names = [name for name in ("boxes", "labels", "masks") if name in target]
    found = {name: target[name][kept] for name in names}
    return {**found, "labels": found["labels"] + first}
