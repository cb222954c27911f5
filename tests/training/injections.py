"""A driver that puts NaN or infinity into a training, and looks whether anything of it is kept."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

import torch
from tests.fuzz.outcome import Outcome, progress
from torch import Tensor, nn

from foveate.data import make_loader, open_data
from foveate.tasks import Classification
from foveate.training import Recipe, TrainingModule, fit

TEN_CLASSES = list(map(str, range(10)))

KINDS = ("input", "loss", "gradient", "norm", "weights", "weights to start from")
WORDS = {
    "input": "the images hold NaN or infinity",
    "loss": "the training loss became",
    "gradient": "the gradient of 'model.net.4.weight' became infinite or NaN",
    "norm": "the norm of the gradient",
    "weights": "the weight 'model.net.4.weight' holds NaN or infinity",
    "weights to start from": "the weights to start from are not finite: 'model.net.4.weight'",
}
"""What the message says."""


class Poisoned(nn.Module):
    """A network into whose n-th training batch a number that is not finite gets; it notes its state before that."""

    def __init__(self, kind: str, at: int, value: float) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=4), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 4, 10)
        )
        self.kind, self.at, self.value = kind, at, value
        self.calls, self.before, self.after = 0, {}, {}
        worse = {"gradient": lambda g: g * value, "norm": lambda g: torch.full_like(g, 1e30)}.get(kind, lambda g: g)
        self.net[4].weight.register_hook(lambda g: worse(g) if self.calls == at else g)
        if kind == "weights to start from":
            with torch.no_grad():
                self.net[4].weight[1, 2] = value

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        if not self.training:
            return self.net(x)
        if self.calls in (self.at, self.at + 1):
            setattr(self, "before" if self.calls == self.at else "after", copy.deepcopy(self.net.state_dict()))
        if self.calls == self.at and self.kind == "input":
            x.mul_(self.value)
        if self.calls == self.at and self.kind == "weights":
            with torch.no_grad():
                self.net[4].weight[1, 2] = self.value
        logits = self.net(x)
        return logits * self.value if self.calls == self.at and self.kind == "loss" else logits


def injection_trials(trials: int, seed: int, folder: Path) -> Outcome:
    """Inject NaN and infinity into images, losses, gradients and weights, at random batches, under both policies."""
    outcome, rng = Outcome(trials=trials), random.Random(seed)
    data = open_data("digits", img_size=16, options={"clutter": 1, "length": 44, "val_length": 20})
    for trial in progress(range(trials), "non-finite"):
        kind, policy = KINDS[trial % len(KINDS)], ("stop", "skip")[trial // len(KINDS) % 2]
        # 5 batches in each of 3 epochs; the last has no one after it that would note what is left
        poisoned = Poisoned(kind, rng.randrange(1, 15), rng.choice([math.nan, math.inf, -math.inf]))
        recipe = Recipe(epochs=3, batch_size=8, ema_decay=0.9, non_finite=policy, max_skipped=2)  # type: ignore[arg-type]
        name = f"trial {trial}: {kind}, {policy}, batch {poisoned.at}"
        out = folder / str(trial)
        out.mkdir(parents=True)
        shared: dict[str, Any] = {"transform": data.transform, "batch_size": 8, "seed": trial}
        loaders = make_loader(data.train, training=True, **shared), make_loader(data.val, training=False, **shared)
        module = TrainingModule(
            poisoned, recipe, Classification(TEN_CLASSES, label_smoothing=recipe.label_smoothing), seed=trial
        )
        stops = policy == "stop" or kind.startswith("weights")
        try:
            history = fit(module, *loaders, out=out, device=torch.device("cpu"), verbose=False, checkpoint_updates=1)
            outcome.check(not stops, f"{name}: not noticed")
            outcome.check(sum(row["skipped"] for row in history) == 1, f"{name}: not counted")
            outcome.check(same(poisoned.before, poisoned.after), f"{name}: a skipped update changed something")
            outcome.check(finite(module.state_dict()), f"{name}: ends with numbers that are not finite")
            outcome.count("skipped")
        except ValueError as error:
            outcome.check(stops, f"{name}: stopped")
            outcome.check(WORDS[kind] in str(error), f"{name}: message {error}")
            unchanged = kind.startswith("weights") or same(poisoned.before, parameters(poisoned.net))
            outcome.check(unchanged, f"{name}: changed before it stopped")
            outcome.count("stopped")
        for file in out.glob("*.ckpt"):
            saved = torch.load(file, weights_only=True)["state_dict"]
            spared = kind == "weights" and policy == "skip"  # they were not finite before the update
            outcome.check(spared or finite(saved), f"{name}: {file.name} is not finite")
        outcome.count(kind)
    return outcome


def parameters(net: nn.Module) -> dict[str, Tensor]:
    return dict(net.named_parameters())


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return all(torch.equal(before[name], value) for name, value in after.items())


def finite(weights: dict[str, Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in weights.values())
