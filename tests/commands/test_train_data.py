"""What a run keeps of its data: names that are no text, and whether it is resumed on the same."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.layouts import write_images

import foveate
from foveate import cli
from foveate.commands.evaluate import EvaluateConfig
from foveate.commands.evaluate import run as run_evaluate
from foveate.commands.shards import ShardsConfig
from foveate.commands.shards import run as run_shards
from foveate.data import read_image
from foveate.io import load_network
from foveate.tasks import Classification
from foveate.training import TrainConfig
from foveate.training import train_network as run
from foveate.training.fingerprint import IMAGES, DataFingerprint
from foveate.training.history import History


def config(folder: Path, out: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"model": "test_resnet", "epochs": 1, "batch_size": 4, "device": "cpu", "img_size": 16}
    return TrainConfig(data=str(folder), out=str(out), **{**settings, **changes})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", [f"{split}/{n}" for split in ("train", "val") for n in ("ant", "bee")], 5)


@pytest.fixture
def begun(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Begin a run on the photographs that ends before its first epoch; return what resumes it."""
    with monkeypatch.context() as patch:
        patch.setattr("foveate.training.loop.TrainingLoop._train", interrupted)
        with pytest.raises(RuntimeError, match="in the middle"):
            run(config(photos, tmp_path / "run"), verbose=False)
    return lambda: run(config(photos, tmp_path / "run", resume=True), verbose=False)


def interrupted(*_: object) -> None:
    raise RuntimeError("in the middle")


def renamed(photos: Path) -> list[str]:
    for split in ("train", "val"):
        (photos / split / "ant").rename(photos / split / "wasp")
    return ["the class 'ant' is called 'wasp' now"]


def swapped(photos: Path) -> list[str]:
    (photos / "train" / "ant" / "0.png").rename(photos / "train" / "bee" / "5.png")
    return [r"train: 1 removed \(train/ant/0\.png\)", r"train: 1 added \(train/bee/5\.png\)"]


def removed(photos: Path) -> list[str]:
    for i in (1, 4):
        (photos / "train" / "bee" / f"{i}.png").unlink()
    return ["train: 10 images then, 8 now", r"train: 2 removed \(train/bee/1\.png, train/bee/4\.png\)"]


def added(photos: Path) -> list[str]:
    shutil.copy(photos / "val" / "bee" / "0.png", photos / "val" / "bee" / "00.png")
    return ["val: 10 images then, 11 now", r"val: 1 added \(val/bee/00\.png\)"]


def new_class(photos: Path) -> list[str]:
    write_images(photos, ["train/cow"], 2)
    return ["the class 'cow' was added"]


def lost_class(photos: Path) -> list[str]:
    write_images(photos, ["train/cow"], 2)
    for split in ("train", "val"):
        shutil.rmtree(photos / split / "ant")
    return ["the class 'ant' was removed", "the class 'cow' was added"]


def new_split(photos: Path) -> list[str]:
    shutil.copytree(photos / "val", photos / "test")
    return ["test: 0 images then, 10 now"]


@pytest.mark.slow
@pytest.mark.parametrize("change", [renamed, swapped, removed, added, new_class, lost_class, new_split])
def test_a_run_is_not_resumed_on_other_data(
    photos: Path, tmp_path: Path, begun: Callable[[], None], change: Callable[[Path], list[str]]
):
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    for message in change(photos):
        with pytest.raises(ValueError, match=message):
            begun()
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
    assert cli.main(["train", f"--config={tmp_path / 'run' / 'config.yaml'}", "--resume"]) == 2


@pytest.mark.slow
def test_a_run_is_resumed_where_the_folder_has_moved(photos: Path, tmp_path: Path, begun: Callable[[], None]):
    os.utime(photos / "train" / "ant" / "0.png", (0, 0))
    (tmp_path / "elsewhere").mkdir()
    photos.rename(tmp_path / "elsewhere" / "photos")
    photos.symlink_to(tmp_path / "elsewhere" / "photos")
    begun()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["images"] == 10


@pytest.mark.slow
def test_without_the_list_of_images_a_difference_is_still_an_error(
    photos: Path, tmp_path: Path, begun: Callable[[], None]
):
    swapped(photos)
    (tmp_path / "run" / IMAGES).unlink()
    with pytest.raises(ValueError, match="begun on other data"):
        begun()


@pytest.mark.slow
def test_other_shards_are_noticed(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def make(seed: int) -> Path:
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
        run_shards(ShardsConfig(task=["make", str(photos)], out=tmp_path / "shards", seed=seed))
        return tmp_path / "shards"

    with monkeypatch.context() as patch:
        patch.setattr("foveate.training.loop.TrainingLoop._train", interrupted)
        with pytest.raises(RuntimeError, match="in the middle"):
            run(config(make(0), tmp_path / "run"), verbose=False)
    make(1)
    with pytest.raises(ValueError, match=r"train: 1 removed \(train-000000\.tar"):
        run(config(tmp_path / "shards", tmp_path / "run", resume=True), verbose=False)
    make(0)
    run(config(tmp_path / "shards", tmp_path / "run", resume=True), verbose=False)


def test_renamed_classes_are_told_though_their_images_have_the_same_names(tmp_path: Path):
    def folder(*classes: str) -> DataFingerprint:
        images = [(f"{name}/{number}.jpg", label) for label, name in enumerate(classes) for number in range(3)]
        return DataFingerprint(classes, {"train": len(images)}, {"train": lambda: images})

    before = folder("a", "b", "c", "d")
    before.write(tmp_path)
    with pytest.raises(ValueError, match="'b' is called 'x' now") as raised:
        folder("a", "x", "y").check(before.state(), tmp_path)
    assert "'c' is called 'y' now" in str(raised.value)
    assert "'d' was removed" in str(raised.value)


def test_classes_in_another_order_and_checkpoints_that_do_not_say(tmp_path: Path):
    one, other = (DataFingerprint(names, {"train": 2}, {}) for names in (["a", "b"], ["b", "a"]))
    one.check(None, tmp_path)
    one.check(one.state(), tmp_path)
    with pytest.raises(ValueError, match="another order"):
        one.check(other.state(), tmp_path)


@pytest.mark.slow
def test_names_that_are_no_text_from_the_folder_to_the_result(tmp_path: Path):
    photos = write_images(
        tmp_path / "photos", [f"{split}/{n}" for split in ("train", "val") for n in ("ant", "bee")], 5
    )
    for split in (b"train", b"val"):
        folder = os.fsencode(photos) + b"/" + split
        os.rename(folder + b"/ant", folder + b"/am\xeaise")
        with open(folder + b"/bee/\xff.png", "wb") as file:
            file.write(b"no image")
    name = "am\udceaise"
    result = run(config(photos, tmp_path / "run", max_bad_images=2), verbose=False)
    written = json.loads((tmp_path / "run" / "result.json").read_bytes().decode("utf-8"))
    assert written == result
    assert sorted(Path(bad.partition(":")[0]).name for bad in written["bad_images"]) == ["\udcff.png"] * 2
    _, meta = load_network(tmp_path / "run")
    assert list(meta.classes) == written["network"]["classes"] == [name, "bee"]
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["data"]["classes"] == [name, "bee"]
    asked = EvaluateConfig(
        checkpoint=str(tmp_path / "run"), data=str(photos), split="val", max_bad_images=1, device="cpu"
    )
    asked.json = str(tmp_path / "test.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveate.trained.EvaluationResult.__str__", lambda _: "")  # what a terminal makes of it
        run_evaluate(asked)
    assert set(json.loads((tmp_path / "test.json").read_text())["per_class"]) == {name, "bee"}


@pytest.mark.slow
def test_a_folder_of_the_run_and_of_the_data_whose_names_are_no_text(tmp_path: Path):
    odd = tmp_path / "photos-\udcff"
    write_images(tmp_path / "photos", [f"{split}/{n}" for split in ("train", "val") for n in ("ant", "bee")], 5)
    (tmp_path / "photos").rename(odd)
    out = tmp_path / "run"
    run(config(odd, out), verbose=False)
    assert json.loads((out / "result.json").read_text(encoding="utf-8"))["config"]["data"] == str(odd)
    (out / "result.json").unlink()
    run(config(odd, out, resume=True), verbose=False)
    assert (out / "result.json").exists()


@pytest.mark.slow
def test_the_range_of_intensities_stands_in_the_configuration_of_a_run(tmp_path: Path):
    for split in ("train", "val"):
        for number, name in enumerate(("cold", "warm")):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(4):
                values = np.random.default_rng(i).integers(29_000 + 400 * number, 29_300 + 400 * number, (9, 11))
                Image.fromarray(values.astype(np.uint16)).save(tmp_path / "photos" / split / name / f"{i}.png")
    command = ["train", "test_resnet", f"--data={tmp_path / 'photos'}", f"--out={tmp_path / 'run'}", "--epochs=1"]
    command += ["--batch_size=4", "--device=cpu", "--intensity_range=[29000, 29700]"]
    assert cli.main(command) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["config"]["intensity_range"] == [29000, 29700]
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(ValueError, match="intensity_range"):
        run(config(tmp_path / "photos", tmp_path / "run", img_size=None, resume=True))
    assert cli.main(["train", f"--config={tmp_path / 'run' / 'config.yaml'}", "--resume"]) == 0
    photos = sorted((tmp_path / "photos" / "val").rglob("*.png"))
    trained = foveate.load(tmp_path / "run")
    assert list(trained.meta.intensity_range or ()) == [29000, 29700]
    stretched = [read_image(photo, intensity_range=(29000, 29700)) for photo in photos]
    expected = [[(one.label, one.probability) for one in found] for found in trained.predict(stretched)]
    assert [[(one.label, one.probability) for one in found] for found in trained.predict(photos)] == expected
    correct = [found[0][0] == number // 4 for number, found in enumerate(expected)]
    assert trained.evaluate(tmp_path / "photos", split="val").correct == list(map(int, correct))
    assert cli.main(["explain", str(photos[0]), f"--checkpoint={tmp_path / 'run'}", f"--out={tmp_path / 'seen'}"]) == 0
    seen = json.loads((tmp_path / "seen" / "explanation.json").read_text())["images"][0]["networks"][0]
    assert seen["predictions"][0]["probability"] == pytest.approx(expected[0][0][1], abs=1e-4)


def test_an_epoch_without_a_figure_is_not_the_best():
    class Own(Classification):
        metric = "top1"

    rows = [{"epoch": 1, "val_top1": math.nan}, {"epoch": 2, "val_top1": 0.5}, {"epoch": 3, "val_top1": 0.4}]
    best = [History(rows[:number], Own(["a", "b"]), epochs=3).last_is_best for number in (1, 2, 3)]
    assert best == [True, True, False]
