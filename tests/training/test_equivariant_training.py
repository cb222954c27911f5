"""Trainings with the term of equivariance."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.gated import Gated
from torch import Tensor, nn

from foveate.data import make_loader, open_data
from foveate.tasks import Classification
from foveate.training import Recipe, TrainingModule, fit, make_loggers

CPU = torch.device("cpu")
TEN_CLASSES = list(map(str, range(10)))
DATA = open_data("digits", img_size=16, options={"clutter": 1, "length": 44, "val_length": 20, "test_length": 23})


class Interrupting(nn.Module):
    """A network that is interrupted when it is called in training for the n-th time."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.net, self.at = Gated(), at

    def forward(self, x: Tensor) -> Tensor:
        self.at -= self.training
        if self.at == 0:
            raise KeyboardInterrupt
        return self.net(x)


def train(model: nn.Module, recipe: Recipe, out: Path, *, resume: bool = False, workers: int = 0) -> tuple[Any, Any]:
    out.mkdir(exist_ok=True)
    shared: dict[str, Any] = {"transform": DATA.transform, "batch_size": 8, "seed": 3, "workers": workers}
    loaders = make_loader(DATA.train, training=True, **shared), make_loader(DATA.val, training=False, **shared)
    task = Classification(TEN_CLASSES, label_smoothing=recipe.label_smoothing)
    module = TrainingModule(model, recipe, task, seed=3)
    csv = make_loggers(["csv"], out, {})
    return module, fit(module, *loaders, out=out, device=CPU, resume=resume, verbose=False, loggers=csv)


def test_training_lowers_the_term_and_logs_it_on_its_own(tmp_path: Path) -> None:
    recipe = Recipe(epochs=12, batch_size=8, lr=0.01, warmup_epochs=0, label_smoothing=0, equivariance=3)
    _, history = train(Gated(), recipe, tmp_path)
    terms = [row["train_equivariance"] for row in history]
    _, without = train(Gated(), dataclasses.replace(recipe, equivariance=1e-9), tmp_path / "without")
    assert terms[-1] < 0.7 * without[-1]["train_equivariance"]
    with (tmp_path / "logs" / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    assert [float(row["train_equivariance"]) for row in logged] == terms
    assert [float(row["train_loss"]) for row in logged] == [row["train_loss"] for row in history]
    assert 2 < history[0]["train_loss"] < 2.6  # of classification: ln 10, and nothing of the term


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, batch_size=8, ema_decay=0.9, warmup_epochs=0.5, equivariance=1)
    whole, history = train(Interrupting(at=-1), recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Interrupting(at=2 * (5 + 3)), recipe, tmp_path / "cut")  # the second pass of a batch
    resumed, continued = train(Interrupting(at=-1), recipe, tmp_path / "cut", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [{**row, "seconds": 0} for row in continued] == [{**row, "seconds": 0} for row in history]
    helped, _ = train(Interrupting(at=-1), recipe, tmp_path / "helped", workers=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, helped.state_dict()[name]), name


def test_mixed_precision_and_channels_last(tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=8, precision="bf16-mixed", channels_last=True, equivariance=1)
    _, history = train(Gated(), recipe, tmp_path)
    reference = Recipe(epochs=1, batch_size=8, equivariance=1)
    _, wide = train(Gated(), reference, tmp_path / "wide")
    assert history[0]["train_equivariance"] == pytest.approx(wide[0]["train_equivariance"], rel=0.05)
