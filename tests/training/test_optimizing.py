"""Weight decay of attention in other networks, and updates that are left out, with a scaled loss as well."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.training.test_fit import TEN_CLASSES, small_net, train
from torch import Tensor, nn

import foveate
from foveate.nn import AttentionAugmentedConv2d, ExplicitAttention2d, GlobalSelfAttention2d
from foveate.tasks import Classification
from foveate.training import Recipe, TrainingModule


@pytest.mark.parametrize(
    ("mechanism", "tables"),
    [
        (GlobalSelfAttention2d, ("rel_height", "rel_width")),
        (AttentionAugmentedConv2d, ("rel_height", "rel_width")),
        (ExplicitAttention2d, ("log_radius",)),
    ],
)
def test_attention_in_a_network_that_knows_nothing_of_it_keeps_its_tables(
    mechanism: type[nn.Module], tables: tuple[str, ...]
) -> None:
    model = timm.create_model("resnet18", num_classes=10)
    foveate.replace(model, mechanism, at="layer4", img_size=64)
    module = TrainingModule(model, Recipe(weight_decay=0.3, sched="none", warmup_epochs=0), Classification(TEN_CLASSES))
    optimizer, _ = module.configure_optimizers(updates_per_epoch=7)
    groups = [group for group in optimizer.param_groups if group["weight_decay"] == 0]
    spared = {id(p) for group in groups for p in group["params"]}
    named = {name for name, p in model.named_parameters() if id(p) in spared}
    wanted = {name for name, _ in model.named_parameters() if name.endswith(tables)}
    assert len(wanted) >= 3
    assert named == wanted | {name for name, p in model.named_parameters() if p.ndim <= 1}


class Exploding(nn.Module):
    """Infinite in one batch of training."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.net, self.call, self.calls = small_net(), call, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.net(x) * (math.inf if self.training and self.calls == self.call else 1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_an_update_that_is_left_out_is_followed_by_others(precision: Any, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=8, precision=precision, non_finite="skip", max_skipped=3)
    module, history = train(Exploding(3), recipe, tmp_path)
    assert [row["skipped"] for row in history] == [1, 0]
    assert all(torch.isfinite(p).all() for p in module.model.parameters())
    assert all(math.isfinite(row["train_loss"]) for row in history)
    assert history[1]["train_loss"] != history[0]["train_loss"]


@pytest.mark.parametrize("name", ["hiera_tiny_224", "pvt_v2_b0", "swin_tiny_patch4_window7_224", "resnet18"])
def test_networks_say_what_is_not_decayed_in_whatever_form(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=10)
    module = TrainingModule(model, Recipe(weight_decay=0.3, sched="none", warmup_epochs=0), Classification(TEN_CLASSES))
    optimizer, _ = module.configure_optimizers(updates_per_epoch=7)
    expected = timm.optim.create_optimizer_v2(model, opt="adamw", lr=0.1, weight_decay=0.3)
    groups = [
        {group["weight_decay"]: set(map(id, group["params"])) for group in one.param_groups}
        for one in (optimizer, expected)
    ]
    assert groups[0] == groups[1]


def test_a_parameter_under_two_names_is_averaged_once_a_step() -> None:
    torch.manual_seed(0)
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(3, 5))
    tied[2].weight = tied[0].weight
    module = TrainingModule(tied, Recipe(ema_decay=0.9), Classification(("a",) * 5))
    assert module.ema is not None
    wanted, average = module.ema.module[0].weight.detach().double(), module.ema.module
    for step in range(1, 6):
        with torch.no_grad():
            tied[0].weight.add_(1.0)
        module.ema.update(module.model, step=step)
        wanted = wanted.lerp(tied[0].weight.detach().double(), 1 - module.ema.get_decay(step))
    assert average[0].weight is average[2].weight
    torch.testing.assert_close(average[0].weight.double(), wanted)
