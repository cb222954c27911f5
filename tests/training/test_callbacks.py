"""Callbacks that end a training, and whose states are in its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from tests.stopping import StopAt
from tests.training.short import DIGITS, SETTINGS, weights

import foveate
from foveate.training.callbacks import CallbackTrainer


@pytest.mark.slow
def test_early_stopping_ends_the_training_as_finished_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    def run(name: str, *callbacks: Any, **how: Any) -> foveate.training.TrainResult:
        patient = EarlyStopping("val_top1", mode="max", min_delta=1.0, patience=2, verbose=True)
        settings = {**SETTINGS, "epochs": 9, "out": str(tmp_path / name), "checkpoint_updates": 1, **how}
        return foveate.train("test_resnet", DIGITS, callbacks=[patient, *callbacks], **settings)

    whole = run("whole")
    assert [row["epoch"] for row in whole.history] == [1, 2, 3]  # the first is the best, and two more were waited for
    with pytest.raises(KeyboardInterrupt):
        run("part", StopAt(9))  # in the second epoch, when one has been waited for already
    part = run("part", resume=True)
    assert [{**row, "seconds": 0} for row in part.history] == [{**row, "seconds": 0} for row in whole.history]
    first, second = weights(whole.folder), weights(part.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)


class StopAfter:
    """Ends the training after its first epoch; with a state."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_step > 2

    def state_dict(self) -> dict[str, Any]:
        return {} if self.state is None else {"state": self.state}


@pytest.mark.slow
def test_a_hook_ends_the_training_after_the_epoch(tmp_path: Path) -> None:
    stopped = foveate.train("test_resnet", DIGITS, callbacks=[StopAfter()], out=str(tmp_path / "stopped"), **SETTINGS)
    assert [row["epoch"] for row in stopped.history] == [1]
    assert (stopped.folder / "result.json").is_file()
    with pytest.raises(ValueError, match="state_dict of StopAfter"):
        foveate.train("test_resnet", DIGITS, callbacks=[StopAfter(object())], out=str(tmp_path / "bad"), **SETTINGS)


@pytest.mark.slow
def test_an_end_that_was_asked_for_is_kept_by_an_interruption(tmp_path: Path) -> None:
    class Once:
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 1:
                trainer.should_stop = True

    how: dict[str, Any] = {**SETTINGS, "out": str(tmp_path / "run"), "checkpoint_updates": 1}
    with pytest.raises(KeyboardInterrupt):
        foveate.train("test_resnet", DIGITS, callbacks=[Once(), StopAt(2)], **how)
    assert len(foveate.train("test_resnet", DIGITS, callbacks=[Once()], resume=True, **how).history) == 1


def test_one_of_several_processes_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(CallbackTrainer, "world_size", 2)  # by which Lightning asks for the number of the process
    patient = EarlyStopping("val_top1", mode="max", verbose=True)
    foveate.train("test_resnet", DIGITS, callbacks=[patient], out=str(tmp_path / "run"), **SETTINGS)
