"""What people do to files and folders: each is done as it was meant, or refused with the way out."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import foveate
from foveate.cli import main
from foveate.io import files as training_files
from foveate.io import load_network, load_weights
from foveate.io.files import sole_writer
from foveate.models import shipped
from foveate.training import TrainConfig
from foveate.training import train_network as run

TINY = "{size: 16, clutter: 1, length: 8, val_length: 4, test_length: 5}"
TRAIN = ["train", "test_resnet", "--data_options", TINY, "--batch_size=8", "--device=cpu", "--epochs=1"]
DIGITS = {"size": 16, "clutter": 1, "length": 8, "val_length": 4, "test_length": 5}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A copy of a network that ships, without its card."""
    copy = tmp_path / "given" / "model.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(shipped()["cram_resnet_tiny.digits"].read_bytes())
    return copy


def is_it(path: Path) -> bool:
    mine, theirs = load_network(path)[0], load_network("cram_resnet_tiny.digits")[0]
    return all(map(torch.equal, mine.state_dict().values(), theirs.state_dict().values()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weights.pth", "weights.bin", "weights", "MODEL.SAFETENSORS"])
def test_a_file_is_what_it_holds_whatever_it_is_called(name: str, weights: Path) -> None:
    renamed = weights.rename(weights.with_name(name))
    assert is_it(renamed)
    state = load_file(renamed)
    start = timm.create_model("cram_resnet_tiny", num_classes=10)
    torch.save(state, weights.with_name("pickled.safetensors"))
    load_weights(start, weights.with_name("pickled.safetensors"))
    assert torch.equal(start.fc.weight, state["fc.weight"].float())


def program(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(1, 2, 3), torch.rand(1, 1, 5, 7)), str(path))


def exported(path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(torch.export.export(torch.nn.Conv2d(1, 2, 3), (torch.rand(1, 1, 5, 7),)), file)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("write", "way_out"),
    [
        (lambda path: path.write_bytes(POINTER), "git lfs pull"),
        (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html><body>404</body></html>"), "web page"),
        (program, "program"),
        (exported, "program"),
        (lambda path: path.write_bytes(b""), "cut short"),
        (lambda path: path.mkdir(), "there is no checkpoint"),
        (lambda path: path.symlink_to("nowhere"), "there is no checkpoint"),
    ],
    ids=["lfs", "html", "jit", "export", "empty", "folder", "dangling"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "last.ckpt"])
def test_what_is_there_in_place_of_weights(
    name: str, write: Callable[[Path], object], way_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / name)
    assert main(["explain", str(tmp_path), f"--checkpoint={tmp_path / name}", f"--out={tmp_path}/out"]) == 2
    assert main([*TRAIN, f"--checkpoint={tmp_path / name}", f"--out={tmp_path}/out"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert all(way_out in line for line in said[1:]), said
    assert not (tmp_path / "out").exists()


def test_what_could_have_been_meant_is_named(weights: Path) -> None:
    for place in (weights.parent / "model.ckpt", weights.rename(weights.with_name("other.safetensors")).parent):
        with pytest.raises(ValueError, match=r"there is no checkpoint .* There are (model|other)\.safetensors"):
            load_network(place)


def test_a_checkpoint_of_a_newer_version(weights: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        meta = json.loads(file.metadata()["foveate"])
    save_file(load_file(weights), weights, metadata={"foveate": json.dumps({**meta, "depth_of_field": 3})})
    with pytest.raises(ValueError, match=r"'depth_of_field'.*update foveate"):
        load_network(weights)


@pytest.mark.slow
def test_pictures_of_an_earlier_call_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), (200, 90, 30)).save("mine.png")
    for _ in range(2):
        assert main(["explain", ".", "--checkpoint=cram_resnet_tiny.digits", "--device=cpu", "--overlays"]) == 0
        found = json.loads(Path("explained/explanation.json").read_text())
        assert [image["file"] for image in found["images"]] == ["mine.png"]


@pytest.mark.slow
def test_links_to_the_folder_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("disk/runs").mkdir(parents=True)
    Path("runs").symlink_to("disk/runs")
    assert main([*TRAIN, "--out=runs/mine"]) == 0
    assert {path.name for path in Path("disk/runs/mine").iterdir()} >= {"model.safetensors", "result.json"}
    Path("latest").symlink_to("runs/mine")
    assert main(["test", "latest", "--data_options", TINY, "--device=cpu"]) == 0
    Path("gone").symlink_to("nowhere/at/all")
    assert main([*TRAIN, "--out=gone"]) == 2
    assert not Path("nowhere").exists()


@pytest.mark.slow
def test_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("config.yaml").write_text("out: ~/runs/b\n")
    assert main([*TRAIN, "--out=~/runs/a"]) == 0  # which no shell expands
    assert main([*TRAIN, "--config=config.yaml"]) == 0
    assert {path.name for path in Path("home/runs").iterdir()} == {"a", "b"}
    assert not Path("~").exists()
    assert main(["test", "~/runs/a", "--data_options", TINY, "--device=cpu"]) == 0


@contextmanager
def held(folder: Path, seconds: float = 60.0) -> Iterator[None]:
    """Let another process hold the lock on a folder that it has made, as one that trains there does."""
    folder.mkdir(exist_ok=True)
    code = (
        "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
        f"print('held', flush=True); time.sleep({seconds})"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.kill()


@pytest.mark.slow
def test_two_runs_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_files, "PATIENCE", 0.3)
    out = tmp_path / "run"
    config = TrainConfig(model="test_resnet", data_options=DIGITS, epochs=1, batch_size=8, device="cpu", out=str(out))
    with held(out):
        with pytest.raises(ValueError, match="another process is writing to"):
            run(config, verbose=False)
        assert list(out.iterdir()) == []
    assert run(config, verbose=False)["images"] == 5  # nothing of the other one is in the way
    with pytest.raises(ValueError, match="holds a finished run"):
        run(config, verbose=False)


@pytest.mark.slow
def test_two_comparisons_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_files, "PATIENCE", 0.3)
    out = tmp_path / "comparison"
    how = {"data_options": DIGITS, "epochs": 1, "batch_size": 8, "seeds": 1, "device": "cpu", "jobs": 1}
    with held(out):
        with pytest.raises(ValueError, match="another process is writing to"):
            foveate.compare(["test_resnet"], out=str(out), verbose=False, **how)
        assert list(out.iterdir()) == []
    assert foveate.compare(["test_resnet"], out=str(out), verbose=False, **how)["images"] == 5


def test_processes_that_live_on_hold_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that load data have the descriptors of the process that they were forked from."""
    monkeypatch.setattr(training_files, "PATIENCE", 0.3)
    with sole_writer(tmp_path):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        worker.start()
    try:
        with sole_writer(tmp_path):
            assert worker.is_alive()
    finally:
        worker.kill()


def test_one_waits_for_what_ends_soon(tmp_path: Path) -> None:
    with held(tmp_path, seconds=0.5):
        start = time.monotonic()
        with sole_writer(tmp_path):
            assert time.monotonic() - start < 5


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written() -> None:
    """Nor is it tried again when the interpreter ends, which would be said, with another code."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "foveate", "models", "cram_resnet_tiny"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"foveate: error: [Errno 28] {os.strerror(28)}"]
