"""What is trained: a network with its loss, optimiser, schedule and average, on timm's; and how it is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from foveate.io.checkpoint import NetworkMeta
from foveate.training.equivariance import Equivariance
from foveate.training.recipe import Recipe

__all__ = ["Batch", "Classifier", "Mixing"]

Batch = tuple[Tensor, Tensor]
"""Images ``(B, C, H, W)`` and class indices ``(B,)``."""


class Mixing(Protocol):
    """Mixes the images of a batch, and their labels into distributions ``(B, num_classes)``."""

    def __call__(self, images: Tensor, labels: Tensor, *, epoch: int, step: int) -> Batch:
        """Return what becomes of batch ``step`` of ``epoch``, both counted from 0."""
        ...


class Classifier(nn.Module):
    """An image classifier that is trained by a `Recipe`; `foveate.training.fit` does it.

    All that is random inside the network (dropout, stochastic depth) is drawn from ``(seed, epoch, step)``, with
    ``step`` counting the batches of the epoch: a run that was interrupted anywhere and is resumed there computes what
    it would have computed uninterrupted.

    Args:
        model: The network: images ``(B, C, H, W)`` to logits ``(B, num_classes)``.
        recipe: How to optimise it.
        num_classes: Number of classes.
        mixing: Mixes batches in training. It must smooth the labels itself if they are to be smoothed.
        meta: Saved with each checkpoint, so that `load_network` can build the network again.
        seed: Of what is random inside the network, and of the similarities of the equivariance term; of several
            processes that train together, each has its own.

    Raises:
        ValueError: The recipe asks for equivariance, and the network has no gate.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        num_classes: int,
        mixing: Mixing | None = None,
        meta: NetworkMeta | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self._memory_format)
        # Decay that grows with the steps: a fixed one would keep the random initial weights alive in a short run.
        self.ema = ModelEmaV3(model, recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        if self.ema is not None:
            self.ema.requires_grad_(False)
        if recipe.compile:
            self.model.compile()  # in place, unlike torch.compile(model): the names of the weights stay
        self.recipe = recipe
        self.equivariance = Equivariance(self.model, recipe, seed=seed) if recipe.equivariance else None
        self.mixing = mixing
        self.meta = meta
        self.num_classes = num_classes
        self.seed = seed
        self.loss: Callable[[Tensor, Tensor], Tensor]
        if mixing is not None:
            self.loss = SoftTargetCrossEntropy()
        else:
            self.loss = LabelSmoothingCrossEntropy(recipe.label_smoothing)
        from torchmetrics import MeanMetric, Metric, MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        ks = (1, 5) if num_classes > 5 else (1,)
        top: dict[str, Metric | MetricCollection] = {
            f"val_top{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in ks
        }
        self.val_accuracy = MetricCollection(top)
        self.val_loss = MeanMetric()

    @property
    def network(self) -> nn.Module:
        """The network to be used: the one with averaged weights if weights are averaged."""
        return self.model if self.ema is None else self.ema.module

    def placed(self, batch: Batch, device: torch.device) -> Batch:
        """Return a batch on ``device``, its images in the memory format of the network."""
        images, labels = batch
        images = images.to(device, non_blocking=True).contiguous(memory_format=self._memory_format)
        return images, labels.to(device, non_blocking=True)

    def forward(self, images: Tensor, labels: Tensor, *, epoch: int, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of training: of classification, and of equivariance by its weight.

        Args:
            images: ``(B, C, H, W)``.
            labels: ``(B,)``, class indices.
            epoch: Number of the epoch, from 0.
            step: Number of the batch in the epoch, from 0.

        Returns:
            The loss, and what it is made of, each without its weight.
        """
        if self.mixing is not None:
            images, labels = self.mixing(images, labels, epoch=epoch, step=step)
        # Not (seed, epoch, step) as such: from that the similarities are drawn, which dropout must not depend on.
        key = np.random.SeedSequence([self.seed, epoch, step, 1]).generate_state(1, np.uint64)
        torch.manual_seed(int(key[0]))
        if self.equivariance is None:
            classification = self.loss(self.model(images).float(), labels)
            return classification, {"loss": classification}
        logits, term = self.equivariance(images, epoch=epoch, step=step)
        classification = self.loss(logits.float(), labels)
        return classification + self.recipe.equivariance * term, {"loss": classification, "equivariance": term}

    def validate(self, images: Tensor, labels: Tensor) -> None:
        """Add a batch to the validation loss and accuracies."""
        logits = self.network(images).float()
        self.val_loss.update(F.cross_entropy(logits, labels), len(images))
        self.val_accuracy.update(logits, labels)

    def validated(self) -> dict[str, float]:
        """Return ``val_loss``, ``val_top1`` and, with more than 5 classes, ``val_top5``; forget what they are of."""
        metrics = {"val_loss": self.val_loss.compute(), **self.val_accuracy.compute()}
        self.val_loss.reset()
        self.val_accuracy.reset()
        return {name: float(value) for name, value in metrics.items()}

    def configure_optimizers(self, updates_per_epoch: int) -> tuple[Optimizer, Scheduler | None]:
        """Build timm's optimiser and, unless ``sched`` is ``none``, its schedule, a function of the updates made."""
        recipe = self.recipe
        optimizer = create_optimizer_v2(
            self.model, opt=recipe.opt, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
        if recipe.sched == "none":
            return optimizer, None
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=recipe.sched,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,  # type: ignore[arg-type]  # becomes a number of updates
            warmup_lr=recipe.lr / 100,
            min_lr=recipe.min_lr,
            decay_epochs=recipe.decay_epochs,
            decay_rate=recipe.decay_rate,
            step_on_epochs=False,
            updates_per_epoch=updates_per_epoch,
        )
        return optimizer, scheduler
