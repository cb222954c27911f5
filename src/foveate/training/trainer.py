"""Training and predicting, on Lightning's Fabric."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from foveate._signals import deferred_signals
from foveate.io.files import remove_temporary
from foveate.training.distributed import SINGLE_PROCESS, Distributed
from foveate.training.fingerprint import DataFingerprint
from foveate.training.loggers import EpochLogger
from foveate.training.loop import TrainingLoop
from foveate.training.module import TrainingModule
from foveate.training.sharding import check_sharding
from foveate.training.train_state import read_checkpoint

__all__ = ["fit", "limited_threads", "predict"]

logger = logging.getLogger(__name__)


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Limit PyTorch's CPU threads within the block; None leaves their number unchanged."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def fit(
    module: TrainingModule,
    train: DataLoader[Any],
    val: DataLoader[Any],
    *,
    out: Path,
    device: torch.device,
    resume: bool = False,
    verbose: bool = True,
    checkpoint_minutes: float = 10.0,
    checkpoint_updates: int = 0,
    distributed: Distributed = SINGLE_PROCESS,
    data: DataFingerprint | None = None,
    loggers: Sequence[EpochLogger] = (),
    callbacks: Sequence[Any] = (),
) -> list[dict[str, float]]:
    """Train ``module`` by its recipe; return what happened in each epoch.

    ``out`` holds ``last.ckpt`` from the start on: written after each epoch, in between as often as asked for, and when
    SIGINT (Ctrl-C) or SIGTERM arrives, at the end of the update or, in validation, of the batch. The one before it is
    ``previous.ckpt``, and that of the epoch with the highest validation metric of the task ``best.ckpt``. A run that
    ends early for whatever reason resumes from there and computes what it would have computed, to the last bit on CPUs.

    Args:
        module: What to train.
        train: Batches to train on, a `foveate.data.ImageLoader` or what has its ``set_epoch`` and ``state_dict``.
        val: Batches to validate on after each epoch.
        out: Folder of the run; it exists.
        device: Where to compute.
        resume: Continue from ``last.ckpt``; from ``previous.ckpt`` if that is damaged, saying so.
        verbose: Print a line per epoch. In a terminal, a progress bar is shown besides.
        checkpoint_minutes: Save within an epoch when so long has passed; 0 does not.
        checkpoint_updates: Save within an epoch after so many updates; 0 does not.
        distributed: The processes that train together, see `process_group`. Each calls this function with its share of
            the images. The main process writes; a run may be resumed by another number of processes.
        data: What the images are. A run is resumed on the same only.
        loggers: What the figures of each epoch are written to, see `make_loggers`.
        callbacks: Objects with any of Lightning's hooks ``on_train_start``, ``on_train_epoch_start``,
            ``on_train_batch_end``, ``on_validation_end``, ``on_train_epoch_end`` and ``on_train_end``. The trainer that
            they are given is the loop: it has ``current_epoch``, ``global_step``, ``callback_metrics`` and
            ``should_stop``, which ends the training after the epoch when it is set to true. What their ``state_dict``
            returns is saved in the checkpoints. Lightning's `EarlyStopping` is one.

    Returns:
        For each epoch ``epoch`` (from 1), ``train_loss`` (of the task), the validation metrics of the task
        (classification: ``val_loss``, ``val_top1`` and, with more than 5 classes, ``val_top5``, fractions), ``lr`` (at
        its end) and ``seconds``; with an equivariance term ``train_equivariance`` (without its weight), with
        ``non_finite=skip`` the number ``skipped``. Those before a resumption are included.

    Raises:
        Interrupted: SIGINT or SIGTERM; a `KeyboardInterrupt`.
        ValueError: A loss, the gradient or a weight is not finite, there is no checkpoint that is whole, or it is of a
            run on other data.
        OSError: A file cannot be written; the checkpoints that were there are whole.
    """
    if distributed.is_main_process:
        remove_temporary(out)
    if distributed.sharded:
        check_sharding(module.recipe)
    from foveate.training.fabric import make_fabric  # imports more than the rest of this package together

    with _quiet(), deferred_signals(verbose=distributed.is_main_process) as stop:
        loop = TrainingLoop(
            module.to(device),
            train,
            val,
            fabric=make_fabric(module.recipe.precision, device, distributed, callbacks),
            distributed=distributed,
            folder=out,
            checkpoint_minutes=checkpoint_minutes,
            checkpoint_updates=checkpoint_updates,
            loggers=loggers,
            data=data,
            callbacks=callbacks,
        )
        if resume:
            _resume(loop, out)
        loop.run(stop, verbose=verbose)
        return loop.rows


@torch.no_grad()
def predict(
    module: TrainingModule,
    loader: Iterable[Any],
    *,
    device: torch.device,
    distributed: Distributed = SINGLE_PROCESS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the task keeps of the network's outputs for all of ``loader``, ``(images, …)``, and of the targets.

    By default these are the outputs and targets themselves. Computed in the precision of the module's recipe and
    returned on the CPU, in the order of ``loader``; those of several processes together, each image once, in the order
    of the data set.
    """
    from foveate.training.fabric import make_fabric

    network, task = module.to(device).network.eval(), module.task
    outputs, targets = [torch.empty(0, *task.record_shape, dtype=task.record_dtype)], [torch.empty(0, dtype=torch.long)]
    with _quiet(), make_fabric(module.recipe.precision, device, distributed).autocast():
        for batch in loader:
            images, wanted = module.to_device(batch, device)
            kept, wanted = task.reduce(task.forward(network, images), wanted)
            outputs.append(kept.cpu())
            targets.append(wanted.cpu())
    return distributed.gather(torch.cat(outputs)), distributed.gather(torch.cat(targets))


def _resume(loop: TrainingLoop, out: Path) -> None:
    state, complaint = read_checkpoint(out)
    if complaint:
        logger.warning("%s; going on from the checkpoint before it", complaint)
    if loop.data is not None:
        loop.data.check(state.get("data"), out)
    try:
        loop.load_state_dict(state)
    except Exception as error:  # what is in a file that looks like a checkpoint may be anything
        raise ValueError(f"the checkpoint in {out} is not one of this run: {error}; give another `out`") from error
    updates = loop.progress.updates
    if loop.distributed.max(updates, -updates) != [updates, -updates]:
        raise ValueError(f"not all processes found the same checkpoint in {out}; give an `out` that all machines share")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning tells its own users. Errors still come through."""
    fabric = logging.getLogger("lightning.fabric")
    level = fabric.level
    with warnings.catch_warnings():
        # The name that replaces it is unknown to older versions of PyTorch.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        try:
            fabric.setLevel(logging.ERROR)
            yield
        finally:
            fabric.setLevel(level)
