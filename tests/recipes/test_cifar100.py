"""CIFAR-100 is laid out by the names of its files: nothing that is trained on or chosen by is tested on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from foveate.data import open_data
from tests.recipes.files import prepare as prepare_of

LABELS = ("apple", "bee", "cup")


prepare = partial(prepare_of, "cifar100")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return files that can be told apart, with the numbers of the real set; opening a folder reads none of them."""
    folder = tmp_path / "source"
    for split, count in (("train", 500), ("val", 100)):
        for label in LABELS:
            (folder / split / label).mkdir(parents=True)
            for image in range(count):
                (folder / split / label / f"{label}_{image:03}.png").write_text(f"{split} {label} {image}")
    return folder


def contents(folder: Path) -> set[str]:
    return {file.read_text() for file in folder.rglob("*.png")}


@pytest.mark.slow
def test_parts_have_no_image_in_common(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare(str(source), "--out", str(tmp_path / "data"), monkeypatch=monkeypatch) == 0
    whole, pilot = tmp_path / "data" / "cifar100", tmp_path / "data" / "cifar100-pilot"
    train, val, test = (contents(whole / split) for split in ("train", "val", "test"))
    assert test == contents(source / "val")
    assert train | val == contents(source / "train")
    assert not train & val
    assert not contents(pilot) & test
    assert not contents(pilot / "train") & contents(pilot / "val")
    data = open_data(whole)
    assert [data.length(split) for split in ("train", "val", "test")] == [1350, 150, 300]
    assert [open_data(pilot).length(split) for split in ("train", "val")] == [300, 150]
    assert prepare(str(source), "--out", str(tmp_path / "data"), monkeypatch=monkeypatch) == 0  # and changes nothing


def test_bad_sources_leave_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (source / "train" / "bee" / "bee_007.png").unlink()
    assert prepare(str(source), "--out", str(tmp_path / "data"), monkeypatch=monkeypatch) == 2
    assert "bee" in capsys.readouterr().err
    assert not (tmp_path / "data" / "cifar100").exists()
    assert prepare(str(tmp_path / "nowhere"), "--out", str(tmp_path / "data"), monkeypatch=monkeypatch) == 2
