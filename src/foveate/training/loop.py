"""Training loop with exact resumption after any update."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm import tqdm

from foveate._signals import Interrupted, StopRequest
from foveate.io.checkpoint import META_KEY, meta_to_json
from foveate.training.callbacks import CallbackTrainer
from foveate.training.distributed import Distributed
from foveate.training.fingerprint import DataFingerprint
from foveate.training.history import History
from foveate.training.loggers import EpochLogger
from foveate.training.module import TrainingModule
from foveate.training.non_finite import check_weights, culprit
from foveate.training.sharding import gathered, load_optimizer, load_weights
from foveate.training.train_state import TrainState, write_checkpoint

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["TrainingLoop"]

SHOWS_BARS: ContextVar[bool] = ContextVar("SHOWS_BARS", default=True)
"""Whether a training in a terminal shows its progress: not one of several at the same time."""


class TrainingLoop(CallbackTrainer):
    """Training loop that can be interrupted after any update and resumed there, to the last bit.

    A checkpoint holds all that the loop continues from: weights, their average, optimizer, `TrainState`, the rows of
    epochs before, and the position of the loader. Random numbers are drawn from the numbers of epoch and batch.

    In distributed training every decision that follows from a figure or a signal is taken by all processes together.

    Args:
        module: What to train; it is on the device.
        train: Batches to train on, with ``set_epoch``, ``state_dict`` and ``load_state_dict``.
        val: Batches to validate on.
        fabric: Lightning's Fabric.
        distributed: The processes that train together.
        folder: Folder of the run; only the main process writes there.
        checkpoint_minutes: Save when this much time has passed since the last time; 0 saves at the ends of epochs only.
        checkpoint_updates: Save after this many updates; 0 does not count them.
        loggers: What the rows of the epochs are written to, by the main process.
        data: Identifies the images; saved with the checkpoint.
        callbacks: Those that ``fabric`` calls.
    """

    def __init__(
        self,
        module: TrainingModule,
        train: Any,
        val: Any,
        *,
        fabric: Fabric,
        distributed: Distributed,
        folder: Path,
        checkpoint_minutes: float,
        checkpoint_updates: int,
        loggers: Sequence[EpochLogger] = (),
        data: DataFingerprint | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        # A sharded network is trained as a copy; the given one stays whole, for validation and for the end.
        self.whole = module
        self.module = copy.deepcopy(module) if distributed.sharded else module
        self.train, self.val = train, val
        self.fabric, self.distributed, self.folder = fabric, distributed, folder
        self.recipe, self.task = module.recipe, module.task
        self.checkpoint_seconds = 60 * checkpoint_minutes or math.inf
        self.checkpoint_updates = checkpoint_updates
        self.data, self.callbacks = data, callbacks
        self.loggers = loggers if distributed.is_main_process else ()
        self.progress = TrainState()
        self.rows: list[dict[str, float]] = []
        self.forward = fabric.setup_module(self.module)
        optimizer, self.schedule = self.module.configure_optimizers(math.ceil(len(train) / self.recipe.accumulate))
        self.optimizer: Any = fabric.setup_optimizers(optimizer)
        # With 16-bit floats some gradients are infinite as a matter of course: the scaler leaves their updates out.
        self.scaler = getattr(fabric.strategy.precision, "scaler", None)

    def state_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        meta = self.module.meta
        return {
            "progress": vars(self.progress),
            "history": self.rows,
            "loader": self.train.state_dict(),
            "state_dict": gathered(self.module.state_dict()),
            "optimizer": gathered(self.optimizer.state_dict()),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "callbacks": self.callback_states(),
            "should_stop": bool(self.distributed.max(self.should_stop)[0]),
            **({} if meta is None else {META_KEY: meta_to_json(meta)}),
            **({} if self.data is None else {"data": self.data.state()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; after an exception, it was not of this run and the loop is unusable."""
        self.progress = TrainState(**state["progress"])
        self.rows = state["history"]
        self.train.load_state_dict(state["loader"])
        load_weights(self.module, state["state_dict"])
        load_optimizer(self.optimizer.optimizer, state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.load_callback_states(state.get("callbacks", ()))
        self.should_stop = state.get("should_stop", False)

    def run(self, stop: StopRequest, *, verbose: bool) -> None:
        """Train until all epochs are complete, or ``stop`` was requested.

        Raises:
            Interrupted: It was. The checkpoint is that of the last update.
            ValueError: A number that is not finite, and the recipe does not let it be skipped.
            OSError: A file cannot be written.
        """
        check_weights(self.module)
        epochs, say = self.recipe.epochs, self.fabric.print if verbose else None
        history = History(self.rows, self.task, epochs=epochs, loggers=self.loggers, say=say)
        status = "failed"
        try:
            if self.progress.updates == 0:
                self.save()
            self.fabric.call("on_train_start", self, self.module)
            while self.progress.epoch < epochs and not self.progress.stopped:
                self._started = self._saved = time.perf_counter()
                self.fabric.call("on_train_epoch_start", self, self.module)
                self._train(stop)
                history.add(self._row(self._validate(stop)))
                self.fabric.call("on_validation_end", self, self.module)
                self.fabric.call("on_train_epoch_end", self, self.module)
                self.progress.next_epoch(stopped=bool(self.distributed.max(self.should_stop)[0]))
                self.save(best=history.last_is_best)
                history.saved()
                if (signum := self._signum(stop)) and self.progress.epoch < epochs and not self.progress.stopped:
                    raise Interrupted(signum)
            self.fabric.call("on_train_end", self, self.module)
            status = "success"
        finally:
            history.close(status)
        self._make_whole()

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint; ``best.ckpt`` too, if it is the best one."""
        state = self.state_dict()
        if self.distributed.is_main_process:
            write_checkpoint(self.folder, state, best=best)
        self._saved = time.perf_counter()

    def _train(self, stop: StopRequest) -> None:
        """Do what is left of an epoch."""
        progress, accumulate, batches = self.progress, self.recipe.accumulate, len(self.train)
        self.module.train()
        self.train.set_epoch(progress.epoch)
        self._begin_update()
        for batch in (bar := self._bar(self.train, "epoch", first=progress.batch)):
            last = (progress.batch + 1) % accumulate == 0 or progress.batch + 1 == batches
            self._add(*self.module.to_device(batch, self.fabric.device), last=last)
            self.fabric.call("on_train_batch_end", self, self.module, self._losses[-1], batch, progress.batch)
            progress.batch += 1
            if last:
                self._update()
                bar.set_postfix({f"train/{name}": mean for name, mean in progress.means().items()})
                self._save_if_due(stop)
        if not self.distributed.sum(progress.batch)[0]:
            raise ValueError("there is no training image that can be read")
        if self._losses:  # a batch of which no image could be read is not given, so that the last was not recognized
            self._update()
            self._save_if_due(stop)

    def _begin_update(self) -> None:
        self._losses: list[dict[str, Tensor]] = []
        self._sizes: list[int] = []
        if self.recipe.non_finite == "skip":  # running statistics change before it is known what a batch is worth
            self._buffers = [buffer.clone() for buffer in self.module.model.buffers()]

    def _add(self, images: Tensor, targets: Any, *, last: bool) -> None:
        """Accumulate the gradient of a batch; with the last one of an update, average over the processes."""
        self._images = images
        (size,) = map(int, self.distributed.sum(len(images)))
        weight = len(images) * self.distributed.size / size  # 1 but where an image could not be read
        with self.fabric.no_backward_sync(self.forward, enabled=not last):
            loss, parts = self.forward(images, targets, epoch=self.progress.epoch, step=self.progress.batch)
            self.fabric.backward(loss * weight / self.recipe.accumulate)
        self._losses.append({name: part.detach() * weight for name, part in parts.items()})
        self._sizes.append(size)

    def _update(self) -> None:
        """Change the weights, the learning rate and the average; or nothing, if a number is not finite."""
        module, progress = self.module, self.progress
        self.fabric.strategy.precision.unscale_gradients(self.optimizer.optimizer)
        gradients = [p.grad for p in module.model.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        whole_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # One wait for the device per update: the price of knowing before the weights are lost.
        losses = self.distributed.mean(torch.stack([part for parts in self._losses for part in parts.values()]))
        values = torch.cat([losses, whole_norm[None]]).tolist()
        if not all(map(math.isfinite, values[:-1] if self.scaler else values)):
            self._skip_or_stop(culprit(module, self._images, values[:-1]))
            if self.scaler is not None:
                self.scaler.update(self.scaler.get_scale())  # else it would take the next gradients for these
        else:
            if self.recipe.clip_grad:
                clip_grads_with_norm_(module.model.parameters(), self.recipe.clip_grad, norm)
            self.optimizer.step()
            self.distributed.average_statistics(module.model)
            if module.ema is not None:
                module.ema.update(module.model, step=progress.updates + 1)
            for size, parts in zip(self._sizes, self._losses, strict=True):
                progress.add(size, {name: values.pop(0) for name in parts})
        self.optimizer.zero_grad()
        progress.updates += 1
        if self.schedule is not None:
            self.schedule.step_update(progress.updates)
        self._begin_update()

    def _skip_or_stop(self, what: str) -> None:
        progress, recipe = self.progress, self.recipe
        where = f"{what} in epoch {progress.epoch + 1}, batch {progress.batch}, at learning rate {self._lr:.3g}"
        if recipe.non_finite == "stop":
            raise ValueError(
                f"{where}; training stopped before this step. Lower lr, lengthen warmup_epochs, set clip_grad=1, use "
                "precision=32-true, or leave such steps out with non_finite=skip, and start anew with another `out`: "
                "a run resumes with its own settings only"
            )
        progress.skipped += 1
        progress.skipped_in_epoch += 1
        if progress.skipped > recipe.max_skipped:
            raise ValueError(
                f"{where}; this is one more update than max_skipped={recipe.max_skipped} lets be skipped, and training "
                "stopped before it"
            )
        for buffer, before in zip(self.module.model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        progress.add(0, dict.fromkeys(self._losses[0], 0.0))  # of an epoch without an update, means of nothing

    def _save_if_due(self, stop: StopRequest) -> None:
        now = time.perf_counter()
        counted = self.checkpoint_updates and self.progress.updates % self.checkpoint_updates == 0
        signum, timed = self.distributed.max(stop.signum or 0, now - self._saved >= self.checkpoint_seconds)
        if signum or counted or timed:
            self.progress.seconds += now - self._started
            self._started = now
            self.save()
        if signum:
            raise Interrupted(int(signum))

    def _signum(self, stop: StopRequest) -> int:
        return int(self.distributed.max(stop.signum or 0)[0])  # that any process got; 0 if none did

    @torch.no_grad()
    def _validate(self, stop: StopRequest) -> dict[str, float]:
        """Return the metrics of validation, which an interruption begins again: it changes nothing."""
        self._make_whole()
        self.whole.eval()
        batches, seen = iter(self._bar(self.val, "validation")), 0
        with self.fabric.autocast():
            for _ in range(int(self.distributed.max(len(self.val))[0])):
                if (batch := next(batches, None)) is not None:  # another process has one more
                    seen += len(batch[0])
                    self.whole.validate(*self.module.to_device(batch, self.fabric.device))
                if self._signum(stop):
                    self._save_if_due(stop)
        if not self.distributed.sum(seen)[0]:
            raise ValueError("there is no validation image that can be read")
        return self.whole.validated()

    def _make_whole(self) -> None:
        if self.distributed.sharded:
            self.whole.load_state_dict(gathered(self.module.state_dict()))

    def _row(self, metrics: dict[str, float]) -> dict[str, float]:
        progress = self.progress
        means = {f"train_{name}": mean for name, mean in progress.means().items()}
        skipped = {"skipped": progress.skipped_in_epoch} if self.recipe.non_finite == "skip" else {}
        seconds = progress.seconds + time.perf_counter() - self._started
        return {"epoch": progress.epoch + 1, **means, **metrics, "lr": self._lr, "seconds": seconds, **skipped}

    @property
    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _bar(self, loader: Any, what: str, first: int = 0) -> Any:
        """Return what iterates over ``loader`` and, in a terminal, shows a bar of progress meanwhile."""
        name = f"{what} {self.progress.epoch + 1}/{self.recipe.epochs}"
        hidden = None if self.distributed.is_main_process and SHOWS_BARS.get() else True
        return tqdm(loader, name, total=len(loader), initial=first, leave=False, disable=hidden, mininterval=0)
