"""What befalls a command from outside: full disks, folders and data that cannot be read, lack of memory."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.cli import main
from tests.command_line import TRAIN, fails


@pytest.mark.slow
def test_folders_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in ("/proc/run", "/sys/run", str(tmp_path / "file"), str(tmp_path / "file" / "run")):
        for command in (TRAIN, ["compare", *TRAIN[1:]]):
            message = fails([*command, f"--out={place}"], capsys)
            assert message.startswith(f"cannot write to the output folder {place}: ")
            assert message.endswith("; choose another one\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fills_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The kernel lets no file grow beyond the limit, as it lets none grow on a full disk, and that for root as well.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        before = fails([*TRAIN, f"--out={tmp_path}/before"], capsys)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        during = fails([*TRAIN, f"--out={tmp_path}/during"], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"cannot write to the output folder {tmp_path}/before: File too large" in before
    assert f"File too large: '{tmp_path}/during/model.safetensors'" in during
    assert not (tmp_path / "before").exists()
    assert not [path for path in (tmp_path / "during").rglob("*") if path.suffix in (".ckpt", ".tmp", ".safetensors")]


def test_data_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "test_resnet", "--device=cpu", f"--out={tmp_path}/run"]
    (tmp_path / "empty").mkdir()
    assert "empty" in fails([*train, f"--data={tmp_path}/empty"], capsys)
    for split in ("train", "val"):
        for label in "ab":
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            (folder / "words.jpg").write_text("a text file named .jpg")
    message = fails([*train, f"--data={tmp_path}/photos", "--batch_size=1", "--img_size=32"], capsys)
    assert "words.jpg: this is not an image in a format that is read" in message


def of_worker(what: str) -> RuntimeError:
    """Return what PyTorch raises where a worker has ended."""
    error = RuntimeError("DataLoader worker (pid(s) 3) exited unexpectedly")
    error.__cause__ = RuntimeError(f"DataLoader worker (pid 3) {what}")
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        of_worker("is killed by signal: Killed. "),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nError: can't allocate memory"),
    ],
)
def test_a_lack_of_memory_is_no_traceback(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: Any) -> None:
        raise error

    monkeypatch.setattr("foveate.commands.train.run", fail)
    message = fails(["train", "test_resnet"], capsys)
    assert "memory ran out" in message
    assert "batch_size" in message
    in_worker = "Caught RuntimeError in DataLoader worker process 0.\na mistake"
    for mistake in (RuntimeError("a mistake"), RuntimeError(in_worker), of_worker("is killed by signal: Aborted")):
        error = mistake
        with pytest.raises(RuntimeError, match=r"a mistake|exited unexpectedly"):
            main(["train", "test_resnet"])


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FOVEATE_DEBUG", "1")
    assert main(["train", "test_resnett"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert errors.splitlines()[-1].startswith("foveate: error: unknown model")


@pytest.mark.slow
def test_a_reader_that_ended_by_the_same_ctrl_c_hinders_nothing(tmp_path: Path) -> None:
    """As under ``foveate train … 2>&1 | tee log``: Ctrl-C ends tee first."""
    command = f"""{sys.executable} -c '
import os, signal, sys
from foveate import cli
from foveate.training.module import TrainingModule
forward = TrainingModule.forward
def interrupted(self, *arguments, **keywords):
    end, broken = os.pipe()
    os.close(end)
    os.dup2(broken, 1), os.dup2(broken, 2)
    os.kill(os.getpid(), signal.SIGINT)
    return forward(self, *arguments, **keywords)
TrainingModule.forward = interrupted
os._exit(cli.main(sys.argv[1:]))
' train test_resnet --device=cpu --epochs=1 --batch_size=16 --out={tmp_path / "run"}"""
    digits = "--data_options={size: 16, clutter: 1, length: 64, val_length: 20, test_length: 20}"
    done = subprocess.run([*shlex.split(command), digits], capture_output=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["progress"]["updates"] == 1
