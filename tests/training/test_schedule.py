"""The learning rate at every update, against closed formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.test_fit import Interrupting, small_net, train
from torch import nn

from foveate.tasks import Classification
from foveate.training import Recipe, TrainingModule
from foveate.training.schedule import make_schedule


def rates(recipe: Recipe, updates_per_epoch: int, epochs: int | None = None) -> list[float]:
    """Return the learning rate of each update, and the one that would follow the last."""
    recipe.check()
    module = TrainingModule(nn.Linear(3, 2), recipe, Classification(["a", "b"]))
    optimizer, schedule = module.configure_optimizers(updates_per_epoch)
    assert schedule is not None
    found = [optimizer.param_groups[0]["lr"]]
    for update in range(1, (epochs or recipe.epochs) * updates_per_epoch + 1):
        schedule.step_update(update)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def cosine(done: float, high: float, low: float) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def test_restarts_are_where_the_protocol_of_expatt_has_them() -> None:
    """Rising to epoch 15, then cycles of 10, 20, 40, … epochs: restarts at 25, 45, 85, 165, 325."""
    recipe = Recipe(
        epochs=450,
        opt="momentum",
        lr=0.05,
        min_lr=0.0,
        warmup_epochs=15,
        warmup_prefix=True,
        cycle_epochs=10,
        cycle_mul=2,
    )
    updates = 3
    starts = [15, 25, 45, 85, 165, 325, 645]
    found = rates(recipe, updates)
    for update, lr in enumerate(found):
        epoch = update / updates
        if epoch < 15:
            expected = 0.0005 + (0.05 - 0.0005) * epoch / 15
        else:
            cycle = sum(start <= epoch for start in starts) - 1
            expected = cosine((epoch - starts[cycle]) / (starts[cycle + 1] - starts[cycle]), 0.05, 0.0)
        assert lr == pytest.approx(expected, abs=1e-9), epoch
    risen = [update / updates for update in range(1, len(found)) if found[update] > found[update - 1] + 0.01]
    assert risen == starts[1:-1]


@pytest.mark.parametrize(("limit", "cycles"), [(0, 4), (2, 2), (7, 4)])
def test_cycles_start_lower_and_end_after_their_number(limit: int, cycles: int) -> None:
    recipe = Recipe(
        epochs=13,
        lr=0.3,
        min_lr=0.01,
        warmup_epochs=0,
        cycle_epochs=2.5,
        cycle_mul=1.5,
        cycle_decay=0.5,
        cycle_limit=limit,
    )
    updates = 7
    starts = [0, 17.5, 43.75, 83.125]  # of 17.5 updates, 26.25, 39.375, …
    for update, lr in enumerate(rates(recipe, updates)):
        cycle = sum(start <= update for start in starts) - 1
        if cycle < cycles:
            done = (update - starts[cycle]) / (17.5 * 1.5**cycle)
            assert lr == pytest.approx(cosine(done, 0.3 * 0.5**cycle, 0.01)), update
        else:
            assert lr == pytest.approx(0.01), update


def test_without_a_number_the_cycles_fill_the_training_and_end_with_it() -> None:
    for mul, epochs in ((1, 12), (2, 21), (3, 39)):  # 4, 3 and 3 cycles that begin with 3 epochs
        recipe = Recipe(epochs=epochs, lr=0.3, min_lr=0.01, warmup_epochs=0, cycle_epochs=3, cycle_mul=mul)
        found = rates(recipe, 5)
        assert found[-1] == pytest.approx(0.01)
        last = epochs * 5 - 3 * 5 * mul ** (2 if mul > 1 else 3)
        assert found[last] == pytest.approx(0.3)
        assert found[last + 1 :] == sorted(found[last + 1 :], reverse=True)
    many = Recipe(epochs=10**6, lr=0.3, warmup_epochs=0, cycle_epochs=1e-3, cycle_mul=1.5)
    assert rates(many, 5, epochs=1)[0] == 0.3


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("sched", ["cosine", "step"])
def test_a_course_begins_with_the_training_or_after_the_warm_up(sched: Any, prefix: bool) -> None:
    recipe = Recipe(
        epochs=5,
        lr=0.2,
        min_lr=0.01,
        warmup_epochs=1.5,
        warmup_prefix=prefix,
        sched=sched,
        decay_epochs=1,
        decay_rate=0.5,
    )
    start, updates = (1.5 if prefix else 0.0), 10
    for update, lr in enumerate(rates(recipe, updates)):
        epoch = update / updates
        if epoch < 1.5:
            expected = 0.002 + 0.198 * epoch / 1.5
        elif sched == "cosine":
            expected = cosine((epoch - start) / (5 - start), 0.2, 0.01)
        else:
            expected = 0.2 * 0.5 ** math.floor(epoch - start)
        assert lr == pytest.approx(expected), epoch


class Rates:
    """Callback that notes the learning rate of each update."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def on_train_batch_end(self, loop: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.seen[loop.global_step] = loop.optimizer.param_groups[0]["lr"]


def test_a_resumed_run_continues_the_cycle_that_it_was_in(tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=3, batch_size=8, lr=0.01, warmup_epochs=0.4, warmup_prefix=True, cycle_epochs=0.8, cycle_mul=2
    )
    uncut, seen = Rates(), Rates()  # 5 updates an epoch: 2 of warm-up, then cycles of 4, 8, … updates
    whole, _ = train(small_net(), recipe, tmp_path / "whole", callbacks=[uncut])
    for resume, call in ((False, 5), (True, 4)):  # in the first cycle, and in the second
        cut = Interrupting(small_net(), at=call)
        with pytest.raises(KeyboardInterrupt):
            train(cut, recipe, tmp_path / "cut", resume=resume, checkpoint_updates=1, callbacks=[seen])
    resumed, _ = train(Interrupting(small_net(), at=-1), recipe, tmp_path / "cut", resume=True, callbacks=[seen])
    assert seen.seen == uncut.seen
    assert uncut.seen == dict(enumerate(rates(recipe, 5)[:-1]))
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cycle_epochs": -1}, "cycle_epochs"),
        ({"cycle_epochs": 2, "cycle_mul": 0.5}, "cycle_mul"),
        ({"cycle_epochs": 2, "cycle_decay": 0}, "cycle_decay"),
        ({"cycle_epochs": 2, "cycle_decay": 1.5}, "cycle_decay"),
        ({"cycle_epochs": 2, "cycle_limit": -1}, "cycle_limit"),
        ({"cycle_epochs": 2, "cycle_limit": 1.5}, "cycle_limit"),
        ({"cycle_epochs": 2, "sched": "step"}, "cycle_epochs"),
        ({"cycle_mul": 2}, "cycle_epochs"),
        ({"cycle_limit": 3}, "cycle_epochs"),
        ({"cycle_decay": 0.5}, "cycle_epochs"),
        ({"warmup_epochs": 5, "warmup_prefix": True}, "warmup_prefix"),
    ],
)
def test_bad_restarts_are_refused(change: dict[str, Any], named: str) -> None:
    Recipe(epochs=5, warmup_epochs=5).check()
    with pytest.raises(ValueError, match=named):
        Recipe(**{"epochs": 5, **change}).check()


def test_no_schedule_is_made_where_none_is_wanted() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert make_schedule(optimizer, Recipe(sched="none", warmup_epochs=0), 5) is None


def test_a_constant_rate_is_warmed_up_to() -> None:
    found = rates(Recipe(sched="none", lr=1.0, epochs=4, warmup_epochs=2), 3)
    assert found[0] == pytest.approx(0.01)
    assert np.allclose(np.diff(found[:7]), np.diff(found[:7])[0])
    assert found[6:] == [1.0] * 7


@pytest.mark.parametrize("warmup", [1.0, 3.0, 4.0])
def test_a_warm_up_ends_at_the_rate_whatever_the_course_is_by_then(warmup: float) -> None:
    found = rates(Recipe(sched="tanh", lr=1.0, epochs=4, warmup_epochs=warmup), 5)
    rising = int(5 * warmup)
    assert found[:rising] == pytest.approx(list(0.01 + 0.99 * np.arange(rising) / rising))
