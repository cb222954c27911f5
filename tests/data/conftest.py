from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo() -> Callable[..., Path]:
    """Write a smooth, random, recognisable RGB image of 37×29 pixels and return its path."""

    def write(path: Path, number: int = 0, size: tuple[int, int] = (37, 29)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        return path

    return write


@pytest.fixture
def photo_folder(tmp_path: Path, photo: Callable[..., Path]) -> Path:
    """Return a folder with 3 classes of 8 training and 3 validation images."""
    for split, count in {"train": 8, "val": 3}.items():
        for label, name in enumerate(("ant", "bee", "cat")):
            for i in range(count):
                photo(tmp_path / "photos" / split / name / f"{i}.png", number=1000 * (split == "val") + 100 * label + i)
    return tmp_path / "photos"
