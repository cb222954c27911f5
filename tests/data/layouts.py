"""Folders of images that people have, made for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.made_sets import write_photo

from foveate.data.splitting import Splits

__all__ = ["counts", "write_images"]


def write_images(root: Path, folders: Iterable[str], count: int = 6, ending: str = ".png") -> Path:
    """Write ``count`` images into each folder below ``root``, all different; return ``root``."""
    for number, folder in enumerate(folders):
        for i in range(count):
            write_photo(root / folder / f"{i}.png", number=100 * number + i, size=(7, 5)).rename(
                root / folder / f"{i}{ending}"
            )
    return root


def counts(splits: Splits) -> dict[str, dict[str, int]]:
    """Return the number of images of each class in each split, by name; classes without any are left out."""
    found: dict[str, dict[str, int]] = {}
    for split in ("train", "val", "test"):
        images = getattr(splits, split)
        for _, label in [] if images is None else images.samples:
            by_class = found.setdefault(split, {})
            by_class[splits.classes[label]] = by_class.get(splits.classes[label], 0) + 1
    return found
