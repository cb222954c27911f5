"""Comparisons whose runs go side by side, each in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.commands.watched import BEFORE_TRAINING_STEP, SEEN, config
from tests.costs import leave_out_costs

from foveate.cli import main
from foveate.commands.compare import run
from foveate.training.train_state import read_checkpoint


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()
    BEFORE_TRAINING_STEP.clear()


def computed(out: Path) -> dict[str, Any]:
    """Return what the runs of a comparison computed, by folder: all that must not depend on how they were run."""
    found = {}
    for file in out.rglob("result.json"):
        result = json.loads(file.read_text())
        history = [{name: value for name, value in row.items() if name != "seconds"} for row in result["history"]]
        weights = {k: v.numpy().tobytes() for k, v in load_file(file.with_name("model.safetensors")).items()}
        found[str(file.parent.relative_to(out))] = (history, result["correct"], result["threads"], weights)
    return found


@pytest.mark.slow
def test_side_by_side_ctrl_c_ends_all_and_all_go_on_to_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ["conv_resnet_tiny", "cram_resnet_tiny:drop_rate=0.4"]
    words = [*models, "--seeds=1", "--device=cpu", "--batch_size=8", "--epochs=8", "--workers=1"]
    words += ["--data_options={size: 16, clutter: 1, length: 96, val_length: 20, test_length: 31}"]
    cut = ["compare", *words, "--jobs=2", f"--out={tmp_path}/cut"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "foveate", *cut], **pipes) as process:
        folders = [tmp_path / "cut" / name.replace(":", "+") / "seed-0" for name in models]
        logs = [folder / "logs" / "metrics.csv" for folder in folders]
        while not all(log.exists() and len(log.read_text().splitlines()) > 1 for log in logs):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert b"run the same command again" in errors
    assert b"Traceback" not in errors
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    epochs = [read_checkpoint(folder)[0]["progress"]["epoch"] for folder in folders]
    assert all(1 <= epoch < 8 for epoch in epochs)
    before = torch.get_num_threads()
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random.py").write_text("raise SystemExit('not the one of Python')")
    leave_out_costs(monkeypatch)
    assert main(cut) == 0
    lines = sorted(capsys.readouterr().out.splitlines()[:2])
    assert [line.split("]")[0] for line in lines] == ["[1/2", "[2/2"]
    assert main(["compare", *words, "--jobs=1", f"--out={tmp_path}/whole"]) == 0
    assert torch.get_num_threads() == before
    assert computed(tmp_path / "cut") == computed(tmp_path / "whole")
    assert {threads for _, _, threads, _ in computed(tmp_path / "cut").values()} == {1}
    one, other = (json.loads((tmp_path / out / "compare.json").read_text()) for out in ("cut", "whole"))
    assert one["protocol"] == other["protocol"]


@pytest.mark.slow
def test_side_by_side_a_run_that_fails_is_named_and_ends_all(tmp_path: Path) -> None:
    models = ["conv_resnet_tiny", "conv_resnet_tiny:lr=1e30"]
    with pytest.raises(ValueError, match=r"\[2/2\] conv_resnet_tiny\+lr=1e30 seed 0: the .* in epoch 1"):
        run(config(tmp_path, models=models, seeds=1, epochs=500, jobs=2))
    assert {path.parent.parent.name for path in tmp_path.rglob("last.ckpt")} >= {"conv_resnet_tiny+lr=1e30"}
    assert list(tmp_path.rglob("result.json")) == []  # nor is the other finished: it may not have begun


@pytest.mark.slow
def test_a_network_that_this_process_alone_knows_is_not_trained_by_others(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs"):
        run(config(tmp_path, models=["test_resnet", "watched_resnet"], jobs=2))
    table = run(config(tmp_path, models=["watched_resnet"], seeds=1, epochs=1, jobs=None))
    assert SEEN
    assert table["protocol"]["threads"] == 1
