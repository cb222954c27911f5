from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.made_sets import write_photo


@pytest.fixture
def photo() -> Callable[..., Path]:
    """Write a smooth, random, recognisable RGB image of 37×29 pixels and return its path."""
    return write_photo


@pytest.fixture
def photo_folder(tmp_path: Path, photo: Callable[..., Path]) -> Path:
    """Return a folder with 3 classes of 8 training and 3 validation images."""
    for split, count in {"train": 8, "val": 3}.items():
        for label, name in enumerate(("ant", "bee", "cat")):
            for i in range(count):
                photo(tmp_path / "photos" / split / name / f"{i}.png", number=1000 * (split == "val") + 100 * label + i)
    return tmp_path / "photos"
