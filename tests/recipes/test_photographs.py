"""The photographs are laid out by the order of the archives alone, and the parts share no image."""

from __future__ import annotations

import csv
import io
import tarfile
from functools import partial
from pathlib import Path

import pytest

from tests.recipes.files import prepare as prepare_of

CLASSES = [f"n{number:08d}" for number in range(11)]
EACH = 60
"""Images of a class in each archive: more than what is taken of some."""


prepare = partial(prepare_of, "photographs")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make archives in the form of the real ones; the content of a file is its name."""
    folder = tmp_path / "source"
    folder.mkdir()
    boxes = []
    for archive in ("train-0", "train-1", "train-2", "train-3", "val"):
        with tarfile.open(folder / f"{archive}.tar", "w") as tar:
            for wnid in reversed(CLASSES):
                for number in range(EACH):
                    name = f"{archive.split('-')[0]}/{wnid}/{wnid}_{archive}_{number}.JPEG"
                    member = tarfile.TarInfo(name)
                    member.size = len(name)
                    tar.addfile(member, io.BytesIO(name.encode()))
                    boxes.append((name, number, 1, 40, 50))
    for name, header, rows in (
        ("boxes.csv", ("file", "x_min", "y_min", "x_max", "y_max"), boxes),
        ("classes.csv", ("wnid", "name"), [(wnid, "a thing, of a kind") for wnid in CLASSES]),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return folder


def archives(folder: Path) -> dict[str, set[str]]:
    """Return from which archives the images of each split come."""
    return {
        split.name: {path.name.split("_")[1] for path in split.rglob("*.JPEG")}
        for split in folder.iterdir()
        if split.is_dir()
    }


@pytest.mark.slow
def test_every_fifth_class_and_the_parts_that_the_protocol_names(source, tmp_path, monkeypatch):
    out = tmp_path / "data"
    assert prepare(str(source), "--out", str(out), monkeypatch=monkeypatch) == 0
    photographs, pilot = out / "photographs", out / "photographs-pilot"
    assert archives(photographs) == {
        "train": {"train-0", "train-1"},
        "val": {"train-2"},
        "test": {"val", "train-3"},
    }
    assert archives(pilot) == {"train": {"train-0"}, "val": {"train-1"}}
    counts = {
        (folder.name, split, wnid): len(list((folder / split / wnid).iterdir()))
        for folder in (photographs, pilot)
        for split in archives(folder)
        for wnid in (CLASSES[0], CLASSES[5], CLASSES[10])
    }
    assert len(list((photographs / "train").iterdir())) == 3
    for (folder, split, _), count in counts.items():
        wanted = (
            {"train": 2 * EACH, "val": 25, "test": 2 * EACH} if folder == "photographs" else {"train": EACH, "val": 50}
        )
        assert count == wanted[split]
    for path in photographs.rglob("*.JPEG"):  # bytes as they were
        assert path.read_text().endswith(f"/{path.parent.name}/{path.name}")
    with (photographs / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == sorted(
        str(path.relative_to(photographs)) for path in photographs.rglob("*.JPEG")
    )
    assert all(row["x_min"] == row["file"].removesuffix(".JPEG").split("_")[2] for row in rows)


@pytest.mark.slow
def test_what_is_there_stays_and_what_was_interrupted_is_made_anew(source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "data"
    (out / ".photographs.partial" / "train" / "left").mkdir(parents=True)
    assert prepare(str(source), "--out", str(out), monkeypatch=monkeypatch) == 0
    assert not (out / "photographs" / "train" / "left").exists()
    (out / "photographs" / "mine").write_text("stays")
    assert prepare(str(source), "--out", str(out), monkeypatch=monkeypatch) == 0
    assert "photographs is there already" in capsys.readouterr().out
    assert (out / "photographs" / "mine").read_text() == "stays"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda source: (source / "train-1.tar").unlink(), "train-1.tar"),
        (lambda source: (source / "train-1.tar").write_bytes(b"no archive"), "file could not be opened"),
        (
            lambda source: (source / "classes.csv").write_text("wnid,name\nn99999999,other\n"),
            "has no image of n99999999",
        ),
    ],
    ids=["missing", "broken", "classes"],
)
def test_what_is_wrong_with_the_source_is_said_and_nothing_is_left_in_place(
    source, tmp_path, monkeypatch, capsys, broken, message
):
    broken(source)
    out = tmp_path / "data"
    assert prepare(str(source), "--out", str(out), monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().err
    assert not (out / "photographs").exists()
