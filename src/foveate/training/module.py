"""The training, validation and test step of a classifier, on timm's losses, optimisers, schedules and averaging."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from foveate.training.checkpoint import META_KEY, NetworkMeta, meta_to_json
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


class Classifier(pl.LightningModule):
    """Trains an image classifier by a `Recipe`.

    All that is random inside the network (dropout, stochastic depth) is drawn from ``(seed, epoch)``, so that a run
    that was interrupted and resumed at the start of an epoch computes what it would have computed uninterrupted.

    Args:
        model: The network: images ``(B, C, H, W)`` to logits ``(B, num_classes)``.
        recipe: How to optimise it.
        num_classes: Number of classes.
        mixing: Mixes batches in training. It must smooth the labels itself if they are to be smoothed.
        meta: Saved with each checkpoint, so that `load_network` can build the network again.
        seed: Of what is random inside the network, and of the similarities of the equivariance term.

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
        self.seed = seed
        self.loss: Callable[[Tensor, Tensor], Tensor]
        if mixing is not None:
            self.loss = SoftTargetCrossEntropy()
        else:
            self.loss = LabelSmoothingCrossEntropy(recipe.label_smoothing)
        ks = (1, 5) if num_classes > 5 else (1,)
        top: dict[str, Metric | MetricCollection] = {
            f"top{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in ks
        }
        self.val_accuracy = MetricCollection(top, prefix="val/")
        self.val_loss = MeanMetric()
        self.tested: list[Batch] = []

    @property
    def network(self) -> nn.Module:
        """The network to be used: the one with averaged weights if weights are averaged."""
        return self.model if self.ema is None else self.ema.module

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Give the images the memory format of the network."""
        images, labels = batch
        return images.contiguous(memory_format=self._memory_format), labels

    def on_train_epoch_start(self) -> None:
        """Fix what is random inside the network for this epoch."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch: of classification, and ``recipe.equivariance`` times the equivariance term.

        Raises:
            ValueError: The loss is not finite; the weights are those before this batch.
        """
        images, targets = batch
        if self.mixing is not None:
            images, targets = self.mixing(images, targets, epoch=self.current_epoch, step=batch_idx)
        term = None
        if self.equivariance is None:
            logits = self.model(images)
        else:
            logits, term = self.equivariance(images, epoch=self.current_epoch, step=batch_idx)
        classification = self.loss(logits.float(), targets)
        loss = classification if term is None else classification + self.recipe.equivariance * term
        # This waits for the GPU once per batch: the price of stopping before the weights are lost.
        if not math.isfinite(loss.item()):
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise ValueError(
                f"the training loss became {loss.item()} in epoch {self.current_epoch + 1}, batch {batch_idx + 1}, "
                f"at learning rate {lr:.3g}; training stopped before this step. "
                "Lower lr, lengthen warmup_epochs, set clip_grad=1, or use precision=32-true, and start anew with "
                "another `out`: a run resumes with its own settings only"
            )
        logged = {"train/loss": classification} | ({} if term is None else {"train/equivariance": term})
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(images), prog_bar=True)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the weights, then their average."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.model, step=self.global_step + 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation loss and accuracies."""
        images, labels = batch
        logits = self.network(images).float()
        self.val_loss.update(F.cross_entropy(logits, labels), len(images))
        self.val_accuracy.update(logits, labels)
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log_dict(self.val_accuracy, prog_bar=True)

    def on_test_start(self) -> None:
        """Forget what an earlier test collected."""
        self.tested = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect logits ``(B, num_classes)`` and labels ``(B,)`` in `tested`, on the CPU."""
        images, labels = batch
        self.tested.append((self.network(images).float().cpu(), labels.cpu()))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build timm's optimiser and, unless ``sched`` is ``none``, its schedule, stepped after every update."""
        recipe = self.recipe
        optimizer = create_optimizer_v2(
            self.model, opt=recipe.opt, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
        if recipe.sched == "none":
            return optimizer
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
            updates_per_epoch=int(self.trainer.estimated_stepping_batches) // recipe.epochs,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Set the learning rate for the next update: timm's schedules are functions of the number of updates."""
        scheduler.step_update(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `load_network` needs."""
        if self.meta is not None:
            checkpoint[META_KEY] = meta_to_json(self.meta)
