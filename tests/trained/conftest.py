"""What the tests of trained networks have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

import foveate
from tests.made_sets import write_photo
from tests.trained.made import saved


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("runs") / "mine" / "model.safetensors").parent


@pytest.fixture(scope="module")
def trained(run: Path) -> foveate.TrainedNetwork:
    return foveate.load(run)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    return [write_photo(folder / f"{number}.png", number, (48, 32)) for number in range(5)]
