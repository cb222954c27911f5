"""The course of the learning rate: timm's schedules, counted in updates."""

from __future__ import annotations

import math

from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from foveate.training.recipe import Recipe

__all__ = ["make_schedule"]


def make_schedule(optimizer: Optimizer, recipe: Recipe, updates_per_epoch: int) -> Scheduler | None:
    """Build timm's schedule of a recipe, a function of the updates made; None if nothing changes the rate.

    The training takes ``epochs`` in any case: whatever does not fit in them, such as the rest of the last cycle, is
    left out.
    """
    if recipe.sched == "none" and not recipe.warmup_epochs:
        return None
    constant = recipe.sched == "none"  # after the warm-up: steps that change nothing
    length = recipe.epochs - (recipe.warmup_epochs if recipe.warmup_prefix else 0)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="step" if constant else recipe.sched,
        num_epochs=recipe.cycle_epochs or length,  # type: ignore[arg-type]  # becomes a number of updates
        warmup_epochs=recipe.warmup_epochs,  # type: ignore[arg-type]
        warmup_prefix=recipe.warmup_prefix,
        warmup_lr=recipe.lr / 100,
        min_lr=recipe.min_lr,
        cycle_mul=recipe.cycle_mul,
        cycle_decay=recipe.cycle_decay
        if recipe.cycle_epochs
        else 0.5,  # of one cycle it means nothing; timm warns at 1
        cycle_limit=_cycles(recipe, length),
        decay_epochs=recipe.decay_epochs,
        decay_rate=1.0 if constant else recipe.decay_rate,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    if recipe.sched == "tanh" and scheduler.warmup_t and not recipe.warmup_prefix:
        # timm's warm-up ends where the course is by then, which is next to nothing if it ends late.
        scheduler.warmup_steps = [(value - recipe.lr / 100) / scheduler.warmup_t for value in scheduler.base_values]
    return scheduler


def _cycles(recipe: Recipe, length: float) -> int:
    """Return how many cycles are begun in ``length`` epochs: timm takes a power of that, so a huge number is none."""
    if not recipe.cycle_epochs:
        return 1
    cycles = length / recipe.cycle_epochs
    if recipe.cycle_mul > 1:  # 1 + mul + mul² + … first cycles
        cycles = math.log1p(cycles * (recipe.cycle_mul - 1)) / math.log(recipe.cycle_mul)
    begun = math.ceil(cycles - 1e-9)  # if the last ends with the training, rounding must not begin another
    return min(begun, recipe.cycle_limit or begun)
