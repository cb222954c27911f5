"""A few of the trials of which `make fuzz` does many, and what needs none of chance."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.injections import KINDS, injection_trials
from tests.training.interruptions import (
    DIGITS,
    PROCESSES,
    Run,
    _main,
    disk_trials,
    kill_trials,
    signal_trials,
    uninterrupted,
)
from torch import nn

from foveate.data import make_loader, open_data
from foveate.tasks import Classification
from foveate.training import Recipe, TrainingModule, fit
from foveate.training.train_state import LAST, PREVIOUS, read_checkpoint, write_checkpoint

TEN_CLASSES = list(map(str, range(10)))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs that nothing interrupts."""
    return tmp_path_factory.mktemp("whole")


def test_killed_runs_go_on_as_if_they_had_not_been(tmp_path: Path, whole: Path) -> None:
    outcome = kill_trials(4, 1, tmp_path / "trials", whole=whole)
    assert outcome.failures == []
    assert outcome.counts["bit-equal"] == 4
    assert outcome.counts["kills"] >= 2
    assert outcome.counts["during a save"] >= 1


def test_signals_save_within_an_update(tmp_path: Path, whole: Path) -> None:
    outcome = signal_trials(3, 1, tmp_path / "trials", whole=whole)
    assert outcome.failures == []
    assert outcome.counts == {"SIGINT": 2, "SIGTERM": 1, "bit-equal": 3}


def test_a_full_disk_harms_no_checkpoint(tmp_path: Path, whole: Path) -> None:
    outcome = disk_trials(3, 1, tmp_path / "trials", whole=whole)
    assert outcome.failures == []
    assert outcome.counts["bit-equal"] == 3
    assert outcome.counts["model.safetensors"] == 1


def test_what_is_not_finite_is_caught_before_the_update(tmp_path: Path) -> None:
    outcome = injection_trials(2 * len(KINDS), 1, tmp_path / "trials")
    assert outcome.failures == []
    assert outcome.counts["skipped"] == 4
    assert outcome.counts["stopped"] == 8


def test_an_epoch_of_which_every_update_is_skipped_has_no_means(tmp_path: Path) -> None:
    data = open_data("digits", img_size=16, options={"clutter": 1, "length": 24, "val_length": 10})
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    model.register_forward_hook(lambda module, _, logits: logits * float("nan") if module.training else logits)
    loaders = (
        make_loader(images, transform=data.transform, batch_size=8, training=training)
        for images, training in ((data.train, True), (data.val, False))
    )
    module = TrainingModule(model, Recipe(epochs=2, batch_size=8, non_finite="skip"), Classification(TEN_CLASSES))
    before = model[1].weight.clone()
    history = fit(module, *loaders, out=tmp_path, device=torch.device("cpu"), verbose=False)
    assert [row["skipped"] for row in history] == [3, 3]
    assert all(math.isnan(row["train_loss"]) and math.isfinite(row["val_loss"]) for row in history)
    assert torch.equal(model[1].weight, before)


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", often=False)
    process = run.start(_slow_steps)
    wait_for(lambda: "in the step" in run.text())
    os.kill(process.pid, signal.SIGINT)
    wait_for(lambda: "Ctrl-C again ends at once" in run.text())
    assert process.is_alive()
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 130
    assert read_checkpoint(run.out)[0]["progress"]["updates"] == 0
    assert not list(run.out.rglob("*.tmp"))


def _slow_steps() -> None:
    """Let the first batch take a minute."""
    from foveate.training.module import TrainingModule

    def forward(*_: Any, **__: Any) -> None:
        os.write(1, b"in the step")
        time.sleep(60)

    TrainingModule.forward = forward  # type: ignore[assignment, method-assign]


def test_a_comparison_is_ended_and_continued(tmp_path: Path) -> None:
    arguments = [
        "compare",
        "test_resnet",
        "test_vit",
        "--seeds=1",
        "--jobs=1",
        "--device=cpu",
        "--batch_size=16",
        "--epochs=1",
    ]
    arguments += [f"--data_options={DIGITS}", f"--out={tmp_path / 'runs'}"]

    def compare(log: str, prepare: Any = None) -> tuple[int, str]:
        process = PROCESSES.Process(target=_main, args=(arguments, str(tmp_path / log), prepare, ()))
        process.start()
        process.join()
        return process.exitcode, (tmp_path / log).read_text()

    code, said = compare("ended", _terminate_in_second_run)
    assert code == 143
    assert said.endswith("foveate: interrupted; run the same command again to go on from here\n")
    assert read_checkpoint(tmp_path / "runs" / "test_vit" / "seed-0")[0]["progress"]["batch"] == 3
    code, said = compare("continued")
    assert code == 0
    assert "test_resnet seed 0: top-1" in said
    assert "finished before and reused" in said
    assert "resumed" in said
    assert len(json.loads((tmp_path / "runs" / "compare.json").read_text())["networks"]) == 2


def _terminate_in_second_run() -> None:
    from foveate.training.module import TrainingModule

    forward, seen = TrainingModule.forward, [0]

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen[0] += 1
        if seen[0] == 12 + 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *args, **kwargs)

    TrainingModule.forward = counted  # type: ignore[method-assign]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, whole: Path) -> None:
    result, _ = uninterrupted(whole / "plain", "plain")
    run = Run(tmp_path / "run")
    shutil.copytree(whole / "plain" / "run", run.out)
    last, previous = run.out / LAST, run.out / PREVIOUS
    assert not previous.exists()  # a finished run needs none
    last.replace(previous)
    last.write_bytes(previous.read_bytes()[:-1000])
    (run.out / "result.json").unlink()
    assert run.finish() == 0
    assert "last.ckpt is damaged, or not of a run; going on from the checkpoint before it" in run.text()
    assert run.result() == result


def test_no_bit_of_a_checkpoint_changes_unnoticed(tmp_path: Path) -> None:
    def content(number: int) -> dict[str, Any]:
        weights = {"model.weight": torch.randn(301, 7, generator=torch.Generator().manual_seed(number))}
        kinds = {"loader": {"epoch": number}, "optimizer": {}, "scaler": {}, "history": [{"lr": number}]}
        return {"progress": {"epoch": number}, "state_dict": weights, "job": "", **kinds}

    def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
        rest = [{key: value for key, value in x.items() if key != "state_dict"} for x in (a, b)]
        return rest[0] == rest[1] and torch.equal(*(x["state_dict"]["model.weight"] for x in (a, b)))

    write_checkpoint(tmp_path, content(1))
    write_checkpoint(tmp_path, content(2))
    whole, noticed = (tmp_path / LAST).read_bytes(), 0
    for place in range(0, len(whole), 23):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (tmp_path / LAST).write_bytes(damaged)
        read, complaint = read_checkpoint(tmp_path)
        assert same(read, content(1 if complaint else 2)), place
        noticed += bool(complaint)
    assert noticed > 0.9 * 301 * 7 * 4 / 23  # the rest is padding


def test_no_checkpoint_is_whole(tmp_path: Path) -> None:
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"last.ckpt is damaged, or not of a run; delete it, or give another `out`"):
        read_checkpoint(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / LAST)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged, or not of a run"):
        read_checkpoint(tmp_path)
