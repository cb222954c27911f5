"""What is explained, by whom."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib import cbook
from PIL import Image
from tests.commands.explained import save

from foveate.data import ClutteredDigits


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("runs")
    sizes = {"cram_resnet_tiny": (48, 64), "gsa_resnet_tiny": (32, 32), "expatt_resnet_tiny": (32, 32)}
    sizes["conv_resnet_tiny"] = (48, 48)
    return {name: str(save(root / name, name, size)) for name, size in sizes.items()}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A photograph, twice of the same name, one on its side, and drawn digits; sorted into classes."""
    folder = tmp_path / "photographs"
    for name in ("person", "tree"):
        (folder / name).mkdir(parents=True)
    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
        hopper = image.convert("RGB")
    hopper.resize((240, 281)).save(folder / "person" / "hopper.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter when shown
    hopper.resize((240, 281)).transpose(Image.Transpose.ROTATE_90).save(folder / "tree" / "hopper.png", exif=exif)
    ClutteredDigits("test", size=32, length=4)[0][0].convert("L").save(folder / "digit.gif")
    return folder
