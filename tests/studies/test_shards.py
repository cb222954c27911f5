"""Reading from tar shards, from a folder and through webdataset, measured on a small set."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.commands.shards import ShardsConfig as MakeConfig
from foveate.commands.shards import run as make
from studies._command import main
from studies.shards.command import ShardsConfig, run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder of 40 training and 10 validation images of 16×16 pixels, and the shards made from it."""
    generator = np.random.default_rng(0)
    base = tmp_path_factory.mktemp("shards")
    for split, count in {"train": 20, "val": 5}.items():
        for name in ("ant", "bee"):
            (base / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(base / "photos" / split / name / f"{i}.png")
    make(MakeConfig(task=["make", str(base / "photos")], out=base / "shards", images_per_shard=8))
    return base / "photos", base / "shards"


@pytest.mark.slow
def test_all_readers_are_timed_in_one_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photos, shards = folders
    settings = {"img_size": 16, "count": 60, "rounds": 3}
    result = run(ShardsConfig(shards=shards, images=photos, out=tmp_path / "out", **settings))
    assert json.loads((tmp_path / "out" / "shards.json").read_text()) == result
    assert (result["images"], result["shards"]) == (40, 5)
    counts = {"decoded": 80, "warm": 40, "cold": 40}  # whole batches of 40
    for name, case in result["cases"].items():
        assert case["count"] == counts[name]
        assert set(case["readers"]) == {"shards", "webdataset", "folder"}
        assert {len(times) for reader in case["readers"].values() for times in reader.values()} == {3}
    text = (tmp_path / "out" / "shards.md").read_text()
    median = 40 / sorted(result["cases"]["cold"]["readers"]["webdataset"]["wall"])[1]
    assert re.search(rf"^\| webdataset \| +{median:,.0f} \(", text.partition("nothing of the files")[2], re.M)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "shards"),
        (["nowhere"], "nowhere"),
        (["x", "--rounds=2"], "rounds"),
        (["x", "--count=0"], "count"),
        (["x", "--img_size=0"], "img_size"),
        (["x", "--seed=-1"], "seed"),
    ],
)
def test_bad_options_are_named(
    arguments: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main("shards", arguments) == 2
    assert named in capsys.readouterr().err
