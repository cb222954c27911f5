"""Images with targets, as they were found: which can be used, and how they come in parts."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from foveate.data.decoding import BadImage, UnreadableImageError, open_image, read_image
from foveate.data.files import EXTENSIONS, NOT_READ, find_files, image_ending, is_image, name_below
from foveate.data.transforms import TransformConfig

__all__ = ["SCALES", "SIZES_TRIED", "Sample", "TargetImages", "check_bad", "divided", "image_files", "suited_transform"]

logger = logging.getLogger(__name__)

VAL_FRACTION = 0.2
LONGEST_SIDE, MULTIPLE = 512, 32
SIZES_TRIED = 16
SCALES = (0.5, 2.0)
"""By how much the sides of training images are scaled."""


class Sample(Protocol):
    """An image file and what is known of its target before it is read."""

    @property
    def path(self) -> str:
        """The image file."""
        ...

    @property
    def bad(self) -> BadImage | None:
        """Why it cannot be used, if that is known already."""
        ...

    @property
    def target_id(self) -> str:
        """What tells the target from another of the same image without reading it."""
        ...

    def target(self, image: Image.Image) -> Any:
        """Read the mask or make the objects of the image; raise an `UnreadableImageError` if they are not usable."""
        ...


class TargetImages(Dataset[tuple[Image.Image, Any]]):
    """RGB images read from files, each with its target.

    Args:
        samples: The images.
        root: Folder from which their names are counted.
        intensity_range: For 16-bit grayscale, what becomes black and what white, see `read_image`.
    """

    def __init__(
        self, samples: Sequence[Any], *, root: str | Path = "", intensity_range: tuple[float, float] | None = None
    ) -> None:
        self.samples: list[Sample] = list(samples)
        self.root = root
        self.intensity_range = intensity_range

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        sample = self.samples[index]
        if sample.bad is not None:
            raise UnreadableImageError(sample.bad)
        image = read_image(sample.path, intensity_range=self.intensity_range)
        return image, sample.target(image)

    def without_masks(self) -> TargetImages:
        """Return the same images, of whose objects no mask is drawn."""
        samples = [replace(one, masks=None) if getattr(one, "masks", None) else one for one in self.samples]  # type: ignore[type-var]
        return TargetImages(samples, root=self.root, intensity_range=self.intensity_range)

    def entries(self) -> Iterator[tuple[str, None]]:
        """Yield the path of each image from the folder of the data, with ``/``."""
        for sample in self.samples:
            yield name_below(sample.path, self.root), None

    def identities(self) -> Iterator[tuple[str, None]]:
        """Yield the same, and what tells its target from another."""
        for sample in self.samples:
            yield f"{name_below(sample.path, self.root)} {sample.target_id}", None


def image_files(folder: Path, top: Path) -> dict[str, str]:
    """Return the image files below ``folder``, a part of ``top``: name from there, with ``/``, and path.

    Raises:
        ValueError: There is no such folder or no image in it, or a link leads out of ``top``.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    found = {}
    for below, names in find_files(folder, top):
        for name in names:
            path = os.path.join(below, name)
            if is_image(name) or image_ending(path):
                found[name_below(path, folder)] = path
    if not found:
        raise ValueError(f"there is no image in {folder}; names of images end in {', '.join(EXTENSIONS)}")
    return dict(sorted(found.items()))


def check_bad(parts: Iterable[TargetImages | None], name: str, max_bad_images: int) -> None:
    """Raise a `ValueError` if it is known of more than ``max_bad_images`` in one part that they cannot be used."""
    found = [[sample.bad for sample in part.samples if sample.bad is not None] for part in parts if part is not None]
    bad = max(found, key=len, default=[])
    if len(bad) > max_bad_images:
        listing = "\n".join(f"  {item}" for item in bad[:10]) + (f"\n  and {len(bad) - 10} more" if bad[10:] else "")
        raise ValueError(
            f"{name} has {len(bad)} image(s) in one part that cannot be used, and max_bad_images allows "
            f"{max_bad_images}:\n{listing}\nmend or remove them, or leave them out with max_bad_images={len(bad)} or "
            "more"
        )


def unread(path: str) -> BadImage | None:
    """Return what to say of a file that is not decoded by the ending of its name."""
    return BadImage(path, "images of this format are not read; convert it") if path.lower().endswith(NOT_READ) else None


def divided(samples: Collection[Any], seed: int, where: Path, fraction: float = VAL_FRACTION) -> tuple[list, list]:
    """Return the images to train on and those kept from them for validation, a fifth at random by ``seed``."""
    given = list(samples)
    held = round(len(given) * fraction)
    if not held:
        raise ValueError(
            f"{where} has too few images to keep {fraction:.0%} of them for validation; add images, or val"
        )
    chosen = set(np.random.default_rng(seed).permutation(len(given))[:held].tolist())
    parts: tuple[list, list] = ([], [])
    for index, sample in enumerate(given):
        parts[index in chosen].append(sample)
    return parts


def suited_transform(
    images: TargetImages, img_size: int | tuple[int, int] | None, *, flip: bool = True
) -> TransformConfig:
    """Return the usual augmentation: scaled by half to twice, cropped, mirrored, colors changed; nothing is distorted.

    The size, if not given, is that of the first image, made smaller so that the longer side is at most 512, and each
    side a multiple of 32.
    """
    return TransformConfig(
        img_size=_native_size(images) if img_size is None else img_size,
        scale=SCALES,
        ratio=(1.0, 1.0),
        hflip=0.5 if flip else 0.0,
        crop_pct=1.0,
        interpolation="bilinear",
        fit="pad",
    )


def _native_size(images: TargetImages) -> tuple[int, int]:
    for sample in images.samples[:SIZES_TRIED]:
        try:
            with open_image(sample.path) as image:
                scale = min(LONGEST_SIDE / max(image.size), 1)
                height, width = (
                    max(round(side * scale / MULTIPLE), 1) * MULTIPLE for side in (image.height, image.width)
                )
                return height, width
        except UnreadableImageError:
            continue  # it will be named when it is read as an image
    return LONGEST_SIDE, LONGEST_SIDE
