"""A recipe: decay, schedule, ranges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
from tests.training.fitted import TEN_CLASSES, small_net, train
from timm import create_model

import foveate
from foveate.tasks import Classification
from foveate.training import EpochLogger, Recipe, TrainingModule


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("test_vit", {"pos_embed", "cls_token"}),
        ("gsa_resnet_tiny", {"rel_height", "rel_width"}),
        ("expatt_resnet_tiny", {"log_radius"}),
    ],
)
def test_decay_spares_norms_biases_and_what_the_network_excludes(name: str, parts: set[str]) -> None:
    model = create_model(name, img_size=32, num_classes=10)
    module = TrainingModule(model, Recipe(weight_decay=0.3, sched="none", warmup_epochs=0), Classification(TEN_CLASSES))
    optimizer, schedule = module.configure_optimizers(updates_per_epoch=7)
    assert schedule is None
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    spared = {name for name, p in model.named_parameters() if decay[id(p)] == 0}
    by_shape = {name for name, p in model.named_parameters() if p.ndim <= 1}
    excluded = {name for name, _ in model.named_parameters() if name.rpartition(".")[2] in parts}
    assert excluded
    assert spared == by_shape | excluded
    assert set(decay.values()) == {0.0, 0.3}


@pytest.mark.parametrize("sched", ["step", "poly", "tanh", "none"])
def test_the_learning_rate_follows_the_schedule(sched: Any, tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=3, batch_size=8, sched=sched, lr=0.1, warmup_epochs=0, min_lr=0.001, decay_epochs=1, decay_rate=0.5
    )
    _, history = train(small_net(), recipe, tmp_path)
    expected = {
        "step": [0.05, 0.025, 0.0125],
        "poly": [0.001 + 0.099 * (1 - epoch / 3) ** 0.5 for epoch in (1, 2, 3)],
        "none": [0.1, 0.1, 0.1],
    }
    rates = [row["lr"] for row in history]
    if sched in expected:
        assert rates == pytest.approx(expected[sched])
    else:
        assert 0.1 > rates[0] > rates[1] > rates[2] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 2.5}, "batch_size must be an integer"),
        ({"lr": 0}, "lr must be a finite number.* above 0"),
        ({"lr": math.nan}, "lr must be a finite number"),
        ({"opt": "adamv"}, "opt must be .*; did you mean 'adam'"),
        ({"sched": "cosin"}, "sched must be one of .*did you mean 'cosine'"),
        ({"precision": "fp16"}, "precision must be one of 32-true"),
        ({"label_smoothing": 1.0}, "label_smoothing must be below 1"),
        ({"ema_decay": -0.1}, "ema_decay must be a finite number.* at least 0"),
        ({"warmup_epochs": 4}, "warmup_epochs=4 is more than epochs=3"),
        ({"min_lr": 1.0}, "min_lr=1 is more than lr=0.001"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"non_finite": "ignore"}, "non_finite must be one of stop, skip"),
        ({"max_skipped": -1}, "max_skipped must be at least 0"),
        ({"clip_grad": -1}, "clip_grad must be"),
        ({"weight_decay": "much"}, "weight_decay must be"),
        ({"momentum": 0, "opt": "sgd"}, "momentum must be above 0"),
        ({"freeze": "layer1"}, r"freeze must be a list .*\['layer1'\]"),
        ({"img_scale": 1.5}, "img_scale must be two factors"),
    ],
)
def test_a_setting_out_of_its_range_is_named(change: dict[str, Any], message: str) -> None:
    Recipe(epochs=3).check()
    Recipe(momentum=0, opt="momentum").check()
    Recipe(momentum=0, opt="adamp").check()  # to which it means nothing
    with pytest.raises(ValueError, match=message):
        Recipe(**{"epochs": 3, **change}).check()


def test_optimizers_whose_package_is_missing_are_known_before_the_folder_is_made(tmp_path: Path) -> None:
    wanting = [name for name in ("fusedadam", "bnbadamw8bit") if name in timm.optim.list_optimizers()]
    for name in wanting:
        with pytest.raises(ValueError, match=f"opt={name}"):
            foveate.train("test_resnet", opt=name, out=str(tmp_path / "x"), device="cpu", verbose=False)
    assert wanting
    assert not (tmp_path / "x").exists()


def test_loggers_in_settings_are_names(tmp_path: Path) -> None:
    for logger in ("csv", [EpochLogger()]):
        with pytest.raises(ValueError, match="logger"):
            foveate.compare(["test_resnet"], logger=logger, out=str(tmp_path / "x"), device="cpu", verbose=False)
    assert not (tmp_path / "x").exists()
