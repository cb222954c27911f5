"""Augmentation and evaluation transforms that move masks and boxes with their image.

An image is resized, cut out, mirrored and padded by one `_Layout`, and its masks and boxes by the same one. Masks are
resized by Pillow as the image is: torchvision's transforms take the nearest pixel of a mask by another rule than that
of an image, which shifts one against the other by up to half a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from foveate import _checks
from foveate.data.dense.objects import VOID, Objects
from foveate.data.fitting import fitted_size, resized
from foveate.data.placement import placement
from foveate.data.transforms import JointTransform, TransformConfig, tensor_transform

__all__ = ["AugmentedJoint", "Evaluation", "JointAugment", "Training", "check_joint"]

JointAugment = Callable[[Image.Image, Any], tuple[Image.Image, Any]]
"""Augmentation by a callable: an RGB image and its mask or `Objects`, to others."""

MIN_SHARE = 0.1
"""A box of which less than this share of the area is left by a crop is no longer shown."""
MIN_SIDE = 1.0
"""A box that augmentation leaves fewer pixels wide or high is not learned."""


class _Layout(NamedTuple):
    """Where a transform puts an image: its new size, and the corner of the tensor on it, which may lie outside."""

    height: int
    width: int
    top: int
    left: int
    size: tuple[int, int]
    hflip: bool = False
    vflip: bool = False

    def part(self, image: Image.Image, interpolation: str) -> Image.Image:
        """Return the part of an image that is in the tensor."""
        image = resized(image, (self.height, self.width), interpolation)
        height, width = self.size
        left, top = max(self.left, 0), max(self.top, 0)
        right, bottom = min(self.left + width, self.width), min(self.top + height, self.height)
        if (left, top, right, bottom) == (0, 0, *image.size):
            return image
        return image.crop((left, top, right, bottom))

    def padded(self, part: Tensor, fill: float) -> Tensor:
        """Return the tensor ``(…, *size)`` of a part, and mirror it."""
        top, left = max(-self.top, 0), max(-self.left, 0)
        whole = part.new_full((*part.shape[:-2], *self.size), fill)
        whole[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
        axes = [axis for axis, flip in ((-2, self.vflip), (-1, self.hflip)) if flip]
        return whole.flip(axes) if axes else whole

    def mask(self, mask: np.ndarray, fill: int) -> Tensor:
        """Return a mask ``(H, W)`` of bytes in the tensor's pixels."""
        return self.padded(torch.from_numpy(np.array(self.part(Image.fromarray(mask), "nearest"))), fill)

    def boxes(self, boxes: Tensor, image: Image.Image) -> Tensor:
        """Return boxes in pixels of the tensor, also outside of it."""
        scale = torch.tensor([self.width / image.width, self.height / image.height] * 2, dtype=torch.float64)
        moved = boxes * scale - torch.tensor([self.left, self.top] * 2)
        height, width = self.size
        if self.hflip:
            moved[:, [0, 2]] = width - moved[:, [2, 0]]
        if self.vflip:
            moved[:, [1, 3]] = height - moved[:, [3, 1]]
        return moved


class Evaluation(JointTransform):
    """Transform of evaluation: the image as `make_transform` makes it, and mask or objects at the same place."""

    config: TransformConfig
    min_side = 0.0
    whole = True
    """Whether all of the image is in the tensor, from its first row and column on."""

    def __init__(self, config: TransformConfig) -> None:
        self.config = config
        self.size = _checks.pair("img_size", config.img_size)
        self.tensor = tensor_transform(config)

    def __call__(self, image: Image.Image, target: Any) -> tuple[Tensor, Any]:
        """Return the normalized tensor, and the mask as a tensor or the objects as a dictionary of tensors."""
        layout = self.layout(image)
        tensor = layout.padded(self.tensor(self.color(layout.part(image, self.config.interpolation))), 0)
        if isinstance(target, Objects):
            made = _objects(target, layout, image, self.min_side)
            if self.whole and self.config.fit == "pad":  # detections are cut off where the image ends
                made["extent"] = torch.tensor([float(layout.width), float(layout.height)])
            return tensor, made
        return tensor, layout.mask(target, VOID).long()

    def layout(self, image: Image.Image) -> _Layout:
        """Return where the image is put."""
        place = placement(self.config, (image.height, image.width))
        height, width = round(image.height * place.scale_y), round(image.width * place.scale_x)
        return _Layout(height, width, place.top, place.left, self.size)

    def color(self, image: Image.Image) -> Image.Image:
        """Return the image in other colors: in evaluation, in its own."""
        return image


class Training(Evaluation):
    """Random transform of training: scale, place, mirroring and colors, from torch's generator."""

    min_side = MIN_SIDE
    whole = False

    def __init__(self, config: TransformConfig) -> None:
        check_joint(config)
        super().__init__(config)
        strength = config.color_jitter
        self.jitter = transforms.ColorJitter(strength, strength, strength) if strength else None

    def layout(self, image: Image.Image) -> _Layout:
        """Draw where the image is put."""
        layout = super().layout(image) if self.config.crop == "none" else self._scaled(image)
        return layout._replace(hflip=_chance(self.config.hflip), vflip=_chance(self.config.vflip))

    def color(self, image: Image.Image) -> Image.Image:
        """Change brightness, contrast and saturation at random."""
        return image if self.jitter is None else self.jitter(image)

    def _scaled(self, image: Image.Image) -> _Layout:
        own = (image.height, image.width)
        if self.config.fit == "pad":
            height, width = fitted_size(own, self.size)
        else:
            cover = max(side / length for side, length in zip(self.size, own, strict=True))
            height, width = (max(round(length * cover), 1) for length in own)
        scale, aspect = _between(*self.config.scale), math.exp(_between(*map(math.log, self.config.ratio)))
        height = max(round(height * scale / math.sqrt(aspect)), 1)
        width = max(round(width * scale * math.sqrt(aspect)), 1)
        top, left = (_offset(new - side) for new, side in zip((height, width), self.size, strict=True))
        return _Layout(height, width, top, left, self.size)


class AugmentedJoint(JointTransform):
    """Training transform with a user's augmentation in place of the random part of ``config``."""

    def __init__(self, augment: JointAugment, config: TransformConfig) -> None:
        if not callable(augment):
            raise ValueError(f"augment must be a callable that takes image and target; got {type(augment).__name__}")
        self.augment, self.prepare, self.config = augment, Evaluation(config), config
        self.prepare.min_side = MIN_SIDE

    def __call__(self, image: Image.Image, target: Any) -> tuple[Tensor, Any]:
        """Return what evaluation makes of the augmented image and its target."""
        found = self.augment(image, target)
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], Image.Image):
            raise ValueError(f"augment must return an image of Pillow's and its target; it returned {found!r:.200}")
        image, changed = found
        _check_target(changed, (image.height, image.width), objects=isinstance(target, Objects))
        return self.prepare(image.convert("RGB"), changed)


def _check_target(target: Any, size: tuple[int, int], *, objects: bool) -> None:
    """Raise a `ValueError` if what a user's augmentation made of a target does not fit the image."""
    masks = target.masks if isinstance(target, Objects) else target
    if isinstance(target, Objects) != objects or not (objects or getattr(target, "dtype", None) == np.uint8):
        wanted = "Objects" if objects else "a mask, an array of uint8"
        raise ValueError(f"augment must return {wanted}; it returned {getattr(target, 'dtype', type(target).__name__)}")
    if masks is not None and tuple(masks.shape[-2:]) != size:
        raise ValueError(f"augment must return masks of the size of the image, {size}; they are {tuple(masks.shape)}")


def check_joint(config: TransformConfig) -> None:
    """Raise a `ValueError` if ``config`` has options that exist for class labels only."""
    for name, wanted in {"auto_augment": None, "random_erasing": 0, "crop_pct": 1}.items():
        value = getattr(config, name)
        if value != wanted and (value or wanted):
            raise ValueError(
                f"{name} is for class labels, it does not move masks and boxes; got {value!r}, leave it out"
            )
    if config.fit == "squash":
        raise ValueError("fit='squash' is for class labels; with masks and boxes give 'pad' or 'crop'")
    if config.crop == "padded":
        raise ValueError("crop='padded' is for class labels; with masks and boxes give 'resized' or 'none'")


def _objects(objects: Objects, layout: _Layout, image: Image.Image, min_side: float) -> dict[str, Tensor]:
    moved = layout.boxes(objects.boxes, image)
    height, width = layout.size
    inside = torch.stack([moved[:, 0::2].clamp(0, width), moved[:, 1::2].clamp(0, height)], 2).flatten(1).float()
    sides, whole = inside[:, 2:] - inside[:, :2], moved[:, 2:] - moved[:, :2]
    shown = (sides > 0).all(1) & (sides >= min_side).all(1) & (sides.prod(1) >= MIN_SHARE * whole.prod(1))
    kept = torch.nonzero(shown).flatten()
    masks = None
    if objects.masks is not None:
        moved_masks = [layout.mask(mask.numpy().astype(np.uint8), 0) for mask in objects.masks[kept]]
        masks = torch.stack(moved_masks) if moved_masks else torch.zeros(0, height, width, dtype=torch.uint8)
        if min_side:
            seen = masks.flatten(1).bool().any(1)
            masks, kept = masks[seen], kept[seen]
    target = {"boxes": inside[kept], "labels": objects.labels[kept], "ignored": objects.ignored[kept]}
    return target if masks is None else {**target, "masks": masks}


def _between(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _chance(probability: float) -> bool:
    return torch.rand(()).item() < probability


def _offset(room: int) -> int:
    """Draw the first pixel of a crop in ``room`` more than it needs; a negative one where the image is the smaller."""
    drawn = int(torch.randint(abs(room) + 1, ()))
    return drawn if room >= 0 else -drawn
