"""Files are whole or absent, on a full disk too."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.stopping import StopAt

import foveate
from foveate.io.files import read_json, remove_temporary, writable_file, writable_folder, write_bytes, write_json
from foveate.training import TrainConfig
from foveate.training.run_folder import is_to_be_resumed
from foveate.training.train_state import read_checkpoint, write_checkpoint


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 10,000 bytes: the kernel refuses the write as it does on a full disk, to root as well."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("full_disk")
def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_bytes(path, b"old")
    with pytest.raises(OSError, match=r"File too large: .*weights"):
        write_bytes(path, bytes(20_000))
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights"]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_found_out_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"cannot write to the output folder {tmp_path}/a/b: File too large"):
        writable_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(ValueError, match=f"cannot write to the output folder {place}: .*; choose another one"):
            writable_folder(place)
    assert writable_folder(tmp_path / "new" / "run").is_dir()
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_a_place_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        writable_file(tmp_path)
    assert writable_file(tmp_path / "new" / "x.json") == tmp_path / "new" / "x.json"
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]


def test_json_holds_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [math.nan, (1.5, -math.inf)], "b": "Δ"})
    assert read_json(tmp_path / "x.json") == {"a": [None, [1.5, None]], "b": "Δ"}
    assert "Δ" in (tmp_path / "x.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_damaged_json_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.json is not JSON"):
        read_json(tmp_path / "x.json")


def test_only_what_a_run_left_is_removed(tmp_path: Path) -> None:
    ours = [tmp_path / ".last.ckpt.123.tmp", tmp_path / "logs" / ".metrics.csv.7.tmp"]
    others = [tmp_path / "other-run" / ".last.ckpt.5.tmp", tmp_path / ".git" / ".user.tmp", tmp_path / ".mine.tmp"]
    for path in (*ours, *others):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / ".folder.1.tmp").mkdir()
    remove_temporary(tmp_path)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_a_job_that_is_started_again_goes_on_with_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = {"size": 16, "clutter": 1, "length": 16, "val_length": 5, "test_length": 5}
    how: dict[str, Any] = {"data_options": digits, "batch_size": 8, "device": "cpu", "out": str(tmp_path / "run")}
    with pytest.raises(KeyboardInterrupt):
        foveate.train("test_resnet", callbacks=StopAt(1), epochs=2, verbose=False, **how)
    config, (state, _) = TrainConfig(model="test_resnet", epochs=2, **how), read_checkpoint(tmp_path / "run")
    for job, file in (("mine", ""), ("none", "/logs/none_x7/attempt_0/0/error.json")):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", file)
        write_checkpoint(tmp_path / "run", state)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", file.replace("attempt_0", "attempt_1"))
        assert is_to_be_resumed(config, True, True)
        with pytest.raises(ValueError, match="unfinished run"):
            is_to_be_resumed(config, True, False)  # not started again
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "other" if job == "mine" else "none")
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", file.replace("none_x7", "none_y8"))
        with pytest.raises(ValueError, match="unfinished run"):
            is_to_be_resumed(config, True, True)
