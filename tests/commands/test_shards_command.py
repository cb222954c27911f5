"""``foveate shards``, from the command line and through a training run."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.training.interruptions import PROCESSES, _main

from foveate.cli import main
from foveate.commands.shards import ShardsConfig, run
from foveate.data import open_data
from foveate.io import files


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with 2 classes of 20 training and 5 validation images of 16×16 pixels."""
    generator = np.random.default_rng(0)
    for split, count in {"train": 20, "val": 5}.items():
        for name in ("ant", "bee"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{i}.png")
    return tmp_path / "photos"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_make_and_check_from_the_command_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["shards", "make", "photos", "--out", "shards", "--shard_size", "20kB"]) == 0
    assert main(["shards", "check", "shards", "--decode"]) == 0
    out = capsys.readouterr().out
    rows = dict(re.findall(r"^(train|val) +\d+ +(\d+) ", out, re.M))
    assert rows == {"train": "40", "val": "10"}
    sizes = [path.stat().st_size for path in (tmp_path / "shards").glob("*.tar")]
    assert len(sizes) > 3
    assert max(sizes) <= 20_000
    assert not list((tmp_path / "shards").glob(".*"))


def test_the_same_folder_and_seed_give_the_same_bytes(photos: Path, tmp_path: Path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run(ShardsConfig(task=["make", str(photos)], out=tmp_path / name, images_per_shard=7, seed=seed))
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one["train-000000.tar"] != three["train-000000.tar"]
    assert one["val-000000.tar"] == three["val-000000.tar"]


def _wait_in_the_last_shard() -> None:
    """Let reading the last image take so long that a signal comes inside of the last shard."""
    read = Path.read_bytes
    Path.read_bytes = lambda path: time.sleep(600) if path.match("val/bee/4.png") else read(path)


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_interrupted_run_is_continued_to_the_same_bytes(
    photos: Path, tmp_path: Path, end: signal.Signals, code: int
):
    run(ShardsConfig(task=["make", str(photos)], out=tmp_path / "whole", images_per_shard=7))
    arguments = ["shards", "make", str(photos), "--out", str(tmp_path / "parts"), "--images_per_shard", "7"]
    log = tmp_path / "log"
    process = PROCESSES.Process(target=_main, args=(arguments, str(log), _wait_in_the_last_shard, ()))
    process.start()
    while not (log.exists() and "\n8/8" in log.read_text()):
        assert process.is_alive(), log.read_text()
        time.sleep(0.01)
    while not (tmp_path / "parts" / ".val-000001.tar.tmp").exists():
        time.sleep(0.01)
    os.kill(process.pid, end)
    process.join()
    said = log.read_text()
    assert process.exitcode == code
    written = contents(tmp_path / "parts")
    assert json.loads(written["shards.json"])["complete"] is False
    with pytest.raises(ValueError, match=r"not all shards of .* were written"):
        open_data(tmp_path / "parts")
    if code == 130:
        assert "the same command writes the others" in said
        assert not [name for name in written if name.endswith(".tmp")]
    before = os.stat(tmp_path / "parts" / "train-000000.tar").st_mtime_ns
    assert main(arguments) == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert os.stat(tmp_path / "parts" / "train-000000.tar").st_mtime_ns == before


def test_a_folder_with_other_shards_is_left_alone(photos: Path, tmp_path: Path):
    out = tmp_path / "shards"
    run(ShardsConfig(task=["make", str(photos)], out=out, images_per_shard=7))
    before = contents(out)
    for change in ({"seed": 1}, {"images_per_shard": 8}, {"decode": True}):
        with pytest.raises(ValueError, match="holds shards of other images or settings; give another folder"):
            run(ShardsConfig(**{"task": ["make", str(photos)], "out": out, "images_per_shard": 7} | change))
    Image.new("RGB", (16, 16)).save(photos / "train" / "ant" / "new.png")
    with pytest.raises(ValueError, match="holds shards of other images"):
        run(ShardsConfig(task=["make", str(photos)], out=out, images_per_shard=7))
    assert contents(out) == before
    (out / "shards.json").unlink()
    with pytest.raises(ValueError, match="has tar files of others"):
        run(ShardsConfig(task=["make", str(photos)], out=out, images_per_shard=7))


def test_images_that_cannot_be_decoded_are_left_out_and_listed(photos: Path, tmp_path: Path):
    bad = [photos / "train" / "ant" / "3.png", photos / "val" / "bee" / "0.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:200])
    bad[1].write_text("not an image")
    settings = {"task": ["make", str(photos)], "images_per_shard": 7, "decode": True}
    with pytest.raises(ValueError, match=r"could not read 1 image\(s\), and max_bad_images allows 0:\n  train/ant/3"):
        run(ShardsConfig(**settings, out=tmp_path / "strict"))
    index = run(ShardsConfig(**settings, out=tmp_path / "shards", max_bad_images=2))
    assert [line.partition(":")[0] for line in index.left_out] == ["train/ant/3.png", "val/bee/0.png"]
    data = open_data(tmp_path / "shards")
    assert (len(data.train), len(data.val)) == (39, 9)
    contents = {data.train.sample(i).content for i in range(39)}
    assert contents == {path.read_bytes() for path in photos.glob("train/*/*.png")} - {bad[0].read_bytes()}


def test_a_shard_of_which_nothing_can_be_read_is_tried_again_and_counted_once(photos: Path, tmp_path: Path):
    (photos / "train" / "ant" / "3.png").write_text("not an image")
    settings = {"task": ["make", str(photos)], "images_per_shard": 1, "decode": True, "max_bad_images": 1}
    first = run(ShardsConfig(**settings, out=tmp_path / "shards"))
    assert run(ShardsConfig(**settings, out=tmp_path / "shards")) == first


def test_an_index_of_what_was_interrupted_does_not_make_it_whole(photos: Path, tmp_path: Path):
    folder = tmp_path / "shards"
    run(ShardsConfig(task=["make", str(photos)], out=folder, images_per_shard=9))
    index = json.loads((folder / "shards.json").read_text()) | {"complete": False}
    index["shards"]["train"] = index["shards"]["train"][:-1]
    (folder / "shards.json").write_text(json.dumps(index))
    (folder / "train-000004.tar").unlink()
    run(ShardsConfig(task=["index", str(folder)]))
    with pytest.raises(ValueError, match="not all shards"):
        open_data(folder)


@pytest.mark.parametrize("options", [{}, {"decode": True, "max_bad_images": 1}])
def test_a_pipe_is_not_waited_for(photos: Path, tmp_path: Path, options: dict[str, object]):
    os.mkfifo(photos / "train" / "ant" / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe\.png is a pipe or a device, not a file; remove it"):
        run(ShardsConfig(task=["make", str(photos)], out=tmp_path / "shards", **options))


def test_check_names_images_that_cannot_be_decoded(photos: Path, tmp_path: Path):
    (photos / "train" / "bee" / "7.png").write_text("not an image")
    run(ShardsConfig(task=["make", str(photos)], out=tmp_path / "shards"))
    run(ShardsConfig(task=["check", str(tmp_path / "shards")]))
    with pytest.raises(ValueError, match=r"1 thing\(s\) wrong[^$]*train-000000\.tar, image \d+: this is not an image"):
        run(ShardsConfig(task=["check", str(tmp_path / "shards")], decode=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of make, index, check and a folder"),
        (["make"], "give one of make, index, check and a folder"),
        (["mkae", "photos"], "did you mean 'make'?"),
        (["make", "photos"], "out: say into which folder"),
        (["make", "photos", "--out", "x", "--shard_size", "256"], "shard_size must be a number and one of kB, MB"),
        (["make", "photos", "--out", "x", "--shard_size", "0MB"], "shard_size must be at least 1kB"),
        (["make", "photos", "--out", "x", "--images_per_shard", "0"], "images_per_shard must be at least 1"),
        (["make", "photos", "--out", "x", "--max_bad_images", "1"], "max_bad_images is for --decode"),
        (["make", "nowhere", "--out", "x"], "there is no folder of images at nowhere"),
        (["make", "photos", "--out", "/dev/null"], "cannot write to the output folder"),
        (["make", "photos", "--out", "photos/train/ant/0.png"], "is in the folder of the images"),
        (["index", "photos", "--out", "x"], "out means nothing to `foveate shards index`"),
        (["index", "photos", "--decode"], "decode means nothing to `foveate shards index`"),
        (["check", "photos", "--max_bad_images", "5"], "max_bad_images means nothing to `foveate shards check`"),
        (["index", "photos"], "there is no tar file in photos"),
        (["check", "photos"], "there is no shards.json in photos"),
    ],
)
def test_wrong_input_is_named(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(photos.parent)
    assert main(["shards", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("foveate: error: ")
    assert message in error
    assert not Path("x").exists()


@pytest.mark.slow
def test_a_network_trains_on_shards_and_is_tested_on_them(photos: Path, tmp_path: Path):
    run(ShardsConfig(task=["make", str(photos)], out=tmp_path / "shards", images_per_shard=6))
    settings = ["--epochs", "1", "--batch_size", "8", "--device", "cpu", "--workers", "2"]
    out = ["--data", str(tmp_path / "shards"), "--out", str(tmp_path / "run")]
    assert main(["train", "conv_resnet_tiny", *out, *settings]) == 0
    assert main(["test", str(tmp_path / "run"), *out[:2], "--split", "val"]) == 0


def test_a_folder_that_another_process_writes_to_is_left_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    out = files.writable_folder(tmp_path / "shards")
    with files.sole_writer(out), pytest.raises(ValueError, match="another process is writing to"):
        run(ShardsConfig(task=["make", str(photos)], out=out))
    assert not list(out.iterdir())
