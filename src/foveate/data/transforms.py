"""Transforms of an RGB image into a normalized tensor: augmentation for training, resize and crop for evaluation."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.auto_augment import AugmentOp, posterize
from timm.data.transforms import ResizeKeepRatio
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from foveate import _checks
from foveate.data.fitting import Fit, Pad

__all__ = [
    "CROPS",
    "FITS",
    "SMALL",
    "Augment",
    "Augmented",
    "JointTransform",
    "TransformConfig",
    "make_transform",
    "tensor_transform",
]

Augment = Callable[[Image.Image], Image.Image | torch.Tensor]
"""Augmentation by a callable: an RGB image to another one, or to the normalized tensor ``(3, H, W)``."""

CROPS = ("resized", "padded", "none")
FITS = ("crop", "pad", "squash")
MAX_ENLARGEMENT = 4
SMALL = 64
"""Images of at most this side, in pixels, are padded and cropped rather than cropped and resized."""


@dataclass(frozen=True)
class TransformConfig:
    """Settings of the transforms. Everything random is for training only.

    Attributes:
        img_size: Height and width of the tensor; one integer stands for both.
        mean: Mean per channel that is subtracted, images being in [0, 1].
        std: Standard deviation per channel that the result is divided by.
        crop: What training does to place and size: ``resized`` is timm's random resized crop (``scale``, ``ratio``);
            ``padded`` pads by an eighth of the size and crops at random, as is usual for images of at most 64 pixels;
            ``none`` places as evaluation does. For images with masks or boxes, see `foveate.data.dense`.
        scale: Range of the part of the area that ``resized`` keeps, at most 1; with masks or boxes, of the side of the
            image in proportion to that in evaluation, with ``fit="pad"`` also above 1, up to 4.
        ratio: Range of width to height of the part that ``resized`` keeps.
        hflip: Probability of mirroring left and right.
        vflip: Probability of mirroring top and bottom.
        color_jitter: Largest relative change of brightness, contrast and saturation; 0 is none. timm leaves it out
            where ``auto_augment`` is given.
        auto_augment: timm's policy string, such as ``rand-m9-mstd0.5-inc1``, ``augmix-m3-w3`` or ``original``.
        random_erasing: Probability of erasing a random rectangle of the tensor.
        crop_pct: In evaluation, and with ``crop="none"``, the image's shorter side becomes ``img_size / crop_pct``
            before the center is cropped; above 1, at most 2, the image gets a black border. It is 1 where
            ``fit="pad"``.
        interpolation: ``bilinear``, ``bicubic`` or ``nearest``.
        fit: How an image of other proportions comes into ``img_size`` in evaluation, and with ``crop="none"``:
            ``crop`` cuts off what is beyond; ``pad`` resizes so that the whole of it fits, and fills the rest, at the
            right or below, with the mean color; ``squash`` resizes both sides, each to its ``img_size / crop_pct``, as
            timm's ``crop_mode="squash"``.
    """

    img_size: int | tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD
    crop: str = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.4
    auto_augment: str | None = None
    random_erasing: float = 0.0
    crop_pct: float = 0.875
    interpolation: str = "bicubic"
    fit: str = "crop"

    def __post_init__(self) -> None:
        object.__setattr__(self, "img_size", _checks.pair("img_size", self.img_size))
        _checks.one_of("crop", self.crop, CROPS)
        _checks.one_of("interpolation", self.interpolation, ("bilinear", "bicubic", "nearest"))
        for name in ("hflip", "vflip", "random_erasing"):
            _checks.number(name, getattr(self, name), minimum=0, maximum=1)
        _checks.number("color_jitter", self.color_jitter, minimum=0)
        _checks.number("crop_pct", self.crop_pct, above=0, maximum=2)
        _checks.one_of("fit", self.fit, FITS)
        if self.fit == "pad" and self.crop_pct != 1:
            raise ValueError(f"crop_pct must be 1 where fit='pad' shows the whole image; got {self.crop_pct}")
        for name, maximum in {"scale": MAX_ENLARGEMENT if self.fit == "pad" else 1, "ratio": math.inf}.items():
            object.__setattr__(self, name, _range(name, getattr(self, name), maximum))
        for name, minimum in {"mean": -math.inf, "std": 0}.items():
            object.__setattr__(self, name, _per_channel(name, getattr(self, name), minimum))
        if self.auto_augment:
            _check_policy(self.auto_augment)

    @classmethod
    def suited_to(cls, img_size: int | tuple[int, int], *, flip: bool = True) -> TransformConfig:
        """Return the usual choice for photographs of this size.

        Above 64 pixels: random resized crop, flip, color jitter, and evaluation on the central 87.5 %. Up to 64
        pixels: padded crop and flip, and evaluation on the whole image.

        Args:
            img_size: Height and width of the tensor.
            flip: Whether a mirror image keeps its class; it does not for writing.
        """
        size = _checks.pair("img_size", img_size)
        hflip = 0.5 if flip else 0.0
        if max(size) > SMALL:
            return cls(img_size=size, hflip=hflip)
        return cls(img_size=size, crop="padded", hflip=hflip, color_jitter=0.0, crop_pct=1.0)

    def replace(self, **changes: Any) -> TransformConfig:
        """Return a copy with ``changes``; a change to ``None`` keeps what is there, as does an option not given."""
        return dataclasses.replace(self, **{name: value for name, value in changes.items() if value is not None})


def make_transform(config: TransformConfig, *, training: bool) -> Callable[[Image.Image], torch.Tensor]:
    """Build what turns an RGB image into a normalized float tensor ``(3, H, W)``.

    Args:
        config: What to do.
        training: With the random parts, else resize and center crop, or pad.

    Raises:
        ValueError: The random resized crop of training would keep more than the whole image.
    """
    shared: dict[str, Any] = {
        "input_size": config.img_size,
        "interpolation": config.interpolation,
        "mean": config.mean,
        "std": config.std,
    }
    if not training:
        if config.fit == "pad":
            size = _checks.pair("img_size", config.img_size)
            return transforms.Compose([Fit(size, config.interpolation), tensor_transform(config), Pad(size)])
        mode = "squash" if config.fit == "squash" else "center"
        return create_transform(**shared, crop_pct=config.crop_pct, crop_mode=mode)
    if config.crop == "resized" and config.scale[1] > 1:
        raise ValueError(f"scale must be at most 1, a part of the image's area, for class labels; got {config.scale}")
    augmentation: dict[str, Any] = {
        "scale": config.scale,
        "ratio": config.ratio,
        "hflip": config.hflip,
        "vflip": config.vflip,
        "color_jitter": config.color_jitter or None,
        "auto_augment": config.auto_augment,
        "re_prob": config.random_erasing,
        "re_mode": "pixel",
    }
    place, color, tensor = create_transform(**shared, **augmentation, is_training=True, separate=True)
    if config.crop != "resized":
        place.transforms[0] = _placing(config)  # the random resized crop stands first, the flips after it
    for operation in _operations(color):
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    if config.crop == "none" and config.fit == "pad":
        tensor = transforms.Compose([tensor, Pad(_checks.pair("img_size", config.img_size))])
    return transforms.Compose([place, color, tensor])


def tensor_transform(config: TransformConfig) -> Callable[[Image.Image], torch.Tensor]:
    """Build what turns an RGB image into a normalized tensor of its own size."""
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(config.mean, config.std)])


class JointTransform(ABC):
    """A transform of an image together with its target, such as a mask that has to move with it.

    Attributes:
        config: How it places images; those too long and narrow for it are not read. None where it resizes nothing.
    """

    config: TransformConfig | None = None

    @abstractmethod
    def __call__(self, image: Image.Image, target: Any) -> tuple[torch.Tensor, Any]:
        """Return the normalized tensor ``(3, H, W)`` and the target that goes with it."""


class Augmented:
    """Training transform with a user's augmentation in place of the random part of ``config``."""

    def __init__(self, augment: Augment, config: TransformConfig) -> None:
        if not callable(augment):
            raise ValueError(f"augment must be a callable that takes an image; got {type(augment).__name__}")
        self.augment, self.size = augment, _checks.pair("img_size", config.img_size)
        self.config, self.prepare = config, make_transform(config, training=False)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the augmented image as a normalized tensor ``(3, H, W)``."""
        found = self.augment(image)
        if isinstance(found, Image.Image):
            return self.prepare(found.convert("RGB"))
        if not isinstance(found, torch.Tensor) or found.shape != (3, *self.size) or not found.is_floating_point():
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(
                f"augment must return an image of Pillow's or a float tensor {(3, *self.size)}; it returned {got}"
            )
        return found


def _operations(color: transforms.Compose) -> Iterator[AugmentOp]:
    """Give the single operations of timm's policies: RandAugment and AugMix have ``ops``, AutoAugment ``policy``."""
    for transform in color.transforms:
        yield from getattr(transform, "ops", ())
        yield from chain.from_iterable(getattr(transform, "policy", ()))


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    # At the highest magnitude timm asks for 0 bits, a black image, which current Pillow refuses.
    return posterize(image, max(bits, 1), **options)


def _placing(config: TransformConfig) -> Callable[[Image.Image], Image.Image]:
    height, width = _checks.pair("img_size", config.img_size)
    if config.crop == "none" and config.fit == "pad":
        return Fit((height, width), config.interpolation)
    if config.crop == "none":
        scaled = (math.floor(height / config.crop_pct), math.floor(width / config.crop_pct))
        crop: Callable[[Image.Image], Image.Image] = transforms.CenterCrop((height, width))
    else:
        scaled = (height, width)
        crop = transforms.RandomCrop((height, width), padding=(width // 8, height // 8))
    if config.crop == "none" and config.fit == "squash":
        return transforms.Compose([transforms.Resize(scaled, InterpolationMode(config.interpolation)), crop])
    return transforms.Compose([ResizeKeepRatio(scaled, interpolation=config.interpolation), crop])


def _range(name: str, value: Any, maximum: float) -> tuple[float, ...]:
    if not isinstance(value, tuple | list) or len(value) != 2 or not 0 < value[0] <= value[1] <= maximum:
        bound = f" and at most {maximum:g}" if math.isfinite(maximum) else ""
        raise ValueError(f"{name} must be (low, high) with 0 < low <= high{bound}; got {value!r}")
    return tuple(value)


def _per_channel(name: str, value: Any, minimum: float) -> tuple[float, ...]:
    if not isinstance(value, tuple | list) or len(value) != 3 or not all(minimum < v < math.inf for v in value):
        bound = f" above {minimum:g}" if math.isfinite(minimum) else ""
        raise ValueError(f"{name} must be three finite numbers{bound}; got {value!r}")
    return tuple(value)


def _check_policy(policy: str) -> None:
    try:
        create_transform(is_training=True, auto_augment=policy)
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(
            f"auto_augment {policy!r} is not one of timm's policies; give for example 'rand-m9-mstd0.5-inc1', "
            f"'augmix-m3-w3', '3a' or 'original' ({error})"
        ) from error
