"""The trained module: a network with its task, optimizer, schedule and weight average."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from foveate.io.checkpoint import NetworkMeta
from foveate.models.inspection import without_decay
from foveate.tasks import Batch, Task
from foveate.training.equivariance import Equivariance
from foveate.training.freezing import freeze, keep_statistics
from foveate.training.recipe import Recipe, make_optimizer
from foveate.training.schedule import make_schedule

__all__ = ["TrainingModule", "to_device"]


class TrainingModule(nn.Module):
    """A network that learns a `Task` by a `Recipe`; `foveate.training.fit` trains it.

    All that is random inside the network (dropout, stochastic depth) is drawn from ``(seed, epoch, step)``, with
    ``step`` counting the batches of the epoch: a run that was interrupted anywhere and is resumed there computes what
    it would have computed uninterrupted.

    Args:
        model: The network: images ``(B, C, H, W)`` to outputs.
        recipe: How to optimize it.
        task: What it learns.
        meta: Saved with each checkpoint, so that `load_network` can build the network again.
        seed: Of what is random inside the network, and of the similarities of the equivariance term; in distributed
            training, each process has its own.

    Raises:
        ValueError: The recipe asks for equivariance, and the network has no gate.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, task: Task, *, meta: NetworkMeta | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self._memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self._memory_format)
        freeze(self.model, recipe.freeze)
        # Decay that grows with the steps: a fixed one would keep the random initial weights alive in a short run.
        self.ema = _Average(model, recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        if self.ema is not None:
            self.ema.requires_grad_(False)
        if recipe.compile:
            self.model.compile()  # in place, unlike torch.compile(model): the names of the weights stay
        self.recipe = recipe
        self.task = task
        self.equivariance = Equivariance(self.model, recipe, seed=seed) if recipe.equivariance else None
        self.meta = meta
        self.seed = seed
        self.metrics = task.metrics()

    @property
    def network(self) -> nn.Module:
        """The network to be used: the one with averaged weights if weights are averaged."""
        return self.model if self.ema is None else self.ema.module

    def train(self, mode: bool = True) -> TrainingModule:
        """Set the mode, but for the parts that are frozen."""
        super().train(mode)
        keep_statistics(self.model, self.recipe.freeze)
        return self

    def to_device(self, batch: Batch, device: torch.device) -> Batch:
        """Return a batch on ``device``, its images in the memory format of the network."""
        images, targets = batch
        images = images.to(device, non_blocking=True).contiguous(memory_format=self._memory_format)
        return images, to_device(targets, device)

    def forward(self, images: Tensor, targets: Any, *, epoch: int, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training loss of a batch: that of the task, plus that of equivariance times its weight.

        Args:
            images: ``(B, C, H, W)``.
            targets: As the task has them.
            epoch: Number of the epoch, from 0.
            step: Number of the batch in the epoch, from 0.

        Returns:
            The loss, and its terms by name, each without its weight.
        """
        if self.recipe.img_scale != (1.0, 1.0):
            images, targets = self._resized(images, targets, epoch=epoch, step=step)
        images, targets = self.task.mix(images, targets, epoch=epoch, step=step)
        # Not (seed, epoch, step) as such: from that the similarities are drawn, which dropout must not depend on.
        key = np.random.SeedSequence([self.seed, epoch, step, 1]).generate_state(1, np.uint64)
        torch.manual_seed(int(key[0]))
        compute = partial(self.task.forward, self.model, targets=targets)
        if self.equivariance is None:
            loss = self.task.loss(compute(images), targets)
            return loss, {"loss": loss}
        outputs, term = self.equivariance(images, compute, epoch=epoch, step=step)
        loss = self.task.loss(outputs, targets)
        return loss + self.recipe.equivariance * term, {"loss": loss, "equivariance": term}

    def _resized(self, images: Tensor, targets: Any, *, epoch: int, step: int) -> Batch:
        """Resize a batch by a factor that is drawn for it, with a uniform logarithm."""
        low, high = map(math.log, self.recipe.img_scale)
        key = np.random.SeedSequence([self.seed, epoch, step, 2])
        factor = math.exp(np.random.default_rng(key).uniform(low, high))
        height, width = (max(1, round(side * factor)) for side in images.shape[-2:])
        images, targets = self.task.resize(images, targets, (height, width))
        return images.contiguous(memory_format=self._memory_format), targets

    def validate(self, images: Tensor, targets: Any) -> None:
        """Add a batch to the validation metrics."""
        self.metrics.update(self.task.forward(self.network, images), targets)

    def validated(self) -> dict[str, float]:
        """Return the validation metrics as ``val_NAME``, and forget the batches."""
        return {f"val_{name}": value for name, value in self.metrics.compute().items()}

    def configure_optimizers(self, updates_per_epoch: int) -> tuple[Optimizer, Scheduler | None]:
        """Build timm's optimizer and the schedule of its learning rate, see `make_schedule`."""
        optimizer = make_optimizer(_parameter_groups(self.model, self.recipe.weight_decay), self.recipe)
        return optimizer, make_schedule(optimizer, self.recipe, updates_per_epoch)


class _Average(ModelEmaV3):
    """timm's average of weights; of a parameter under several names it averages once a step, not once a name."""

    def __init__(self, model: nn.Module, decay: float, **options: Any) -> None:
        super().__init__(model, decay, **options)
        named = self.module.state_dict(keep_vars=True).values()
        self.tied = len(set(map(id, named))) < len(named)

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        if not self.tied:
            super().apply_update_(model, decay)
            return
        states = (one.state_dict(keep_vars=True).values() for one in (self.module, model))
        for mine, own in {id(mine): (mine, own) for mine, own in zip(*states, strict=True)}.values():
            if mine.is_floating_point():
                mine.lerp_(own, 1.0 - decay)
            else:
                mine.copy_(own)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return timm's groups of parameters, with and without weight decay.

    timm asks the network what is to have none; attention in a network that knows nothing of it is asked for itself.
    """
    own: Any = getattr(model, "no_weight_decay", set)
    exempt = {*own(), *without_decay(model)}
    return param_groups_weight_decay(model, weight_decay=weight_decay, no_weight_decay_list=exempt)


def to_device(targets: Any, device: torch.device) -> Any:
    """Move tensors, also in lists and dictionaries, to ``device``."""
    if isinstance(targets, Tensor):
        return targets.to(device, non_blocking=True)
    if isinstance(targets, dict):
        return {name: to_device(value, device) for name, value in targets.items()}
    return [to_device(target, device) for target in targets] if isinstance(targets, list | tuple) else targets
