"""The flowers are laid out by name, and no image is lost."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from recipes.flowers.cbam import SpatialGate
from timm.layers.cbam import SpatialAttn

from foveate.data import open_data
from foveate.models.inspection import gates
from tests.made_sets import write_photo
from tests.recipes.files import prepare as prepare_of

NAMES = {"1": "pink primrose", "21": "fire lily", "102": "blackberry lily", "103": "unused"}
COUNTS = {("train", "001"): 3, ("train", "021"): 2, ("train", "102"): 1, ("val", "001"): 1, ("val", "102"): 2}


prepare = partial(prepare_of, "flowers")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for number, ((split, label), count) in enumerate(COUNTS.items()):
        for image in range(count):
            write_photo(folder / split / label / f"image_{image}.jpg", number=10 * number + image)
    (folder / "cat_to_name.json").write_text(json.dumps(NAMES))
    return folder


def test_folders_have_the_names_of_the_flowers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "flowers"
    assert prepare(str(source), "--out", str(out), monkeypatch=monkeypatch) == 0
    for (split, label), count in COUNTS.items():
        images = sorted((out / split / NAMES[str(int(label))]).iterdir())
        assert len(images) == count
        assert [image.read_bytes() for image in images] == [
            (source / split / label / image.name).read_bytes() for image in images
        ]
    data = open_data(out)
    assert data.classes == ("blackberry lily", "fire lily", "pink primrose")
    assert (data.length("train"), data.length("val")) == (6, 3)
    assert prepare(str(source), "--out", str(out), monkeypatch=monkeypatch) == 0  # and changes nothing


def test_bad_sources_leave_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    out = tmp_path / "flowers"
    for names, said in (({"1": "pink primrose"}, "021"), ({"1": "same", "21": "same", "102": "other"}, "same")):
        (source / "cat_to_name.json").write_text(json.dumps(names))
        assert prepare(str(source), "--out", str(out), monkeypatch=monkeypatch) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()
    assert prepare(str(tmp_path / "nowhere"), "--out", str(out), monkeypatch=monkeypatch) == 2


def test_a_comparison_is_tested_on_images_that_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, out = tmp_path / "source", tmp_path / "flowers"
    for split, label, count in (("train", "1", 23), ("train", "21", 9), ("val", "1", 2), ("val", "21", 1)):
        for image in range(count):
            write_photo(source / split / label / f"image_{image:02}.jpg", number=image)
    (source / "cat_to_name.json").write_text(json.dumps(NAMES))
    assert prepare(str(source), "--out", str(out), "--compare", monkeypatch=monkeypatch) == 0
    data, pilot = open_data(out), open_data(tmp_path / "flowers-pilot")
    assert [data.length(split) for split in ("train", "val", "test")] == [30, 2, 3]
    assert [path.name for path in sorted((out / "val" / "pink primrose").iterdir())] == ["image_09.jpg", "image_19.jpg"]
    assert (pilot.length("train"), pilot.length("val"), pilot.test) == (30, 2, None)
    for path in out.rglob("*.jpg"):
        with Image.open(path) as image:
            assert min(image.size) == 160


@pytest.mark.slow
def test_the_gate_of_cbam_is_timms() -> None:
    torch.manual_seed(0)
    gate = SpatialGate(5).double()
    theirs = SpatialAttn().double()
    theirs.load_state_dict(gate.gate.state_dict())
    x = torch.randn(2, 5, 11, 7, dtype=torch.float64)
    torch.testing.assert_close(gate(x), theirs(x))
    network = timm.create_model("cbam_tf_efficientnet_lite0", num_classes=3, at=2)
    assert [name for name, _ in gates(network).items()] == ["blocks.2.attention"]
