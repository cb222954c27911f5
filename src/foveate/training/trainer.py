"""Lightning's trainer, set up to be quiet, to resume exactly, and to leave whole files behind."""

from __future__ import annotations

import io
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from foveate import _checks
from foveate.training.files import write_bytes
from foveate.training.module import Classifier
from foveate.training.recipe import Recipe

__all__ = ["DEVICES", "LAST", "check_device", "fit", "predict"]

DEVICES = ("auto", "cpu", "cuda")
LAST = "last.ckpt"
"""Name of the checkpoint in the folder of a run from which it resumes."""


def check_device(device: str, precision: str) -> torch.device:
    """Return the device that ``device`` stands for.

    Raises:
        ValueError: There is none such, or it cannot compute in ``precision``.
    """
    _checks.one_of("device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but PyTorch finds no CUDA device; use device=cpu or device=auto")
    found = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if precision == "16-mixed" and found.type == "cpu":
        raise ValueError("precision=16-mixed needs a GPU; on the CPU use bf16-mixed or 32-true")
    return found


def fit(
    module: Classifier,
    train: DataLoader[Any],
    val: DataLoader[Any],
    *,
    out: Path,
    device: torch.device,
    resume: bool = False,
    verbose: bool = True,
) -> list[dict[str, float]]:
    """Train ``module`` by its recipe; return what happened in each epoch.

    After each epoch ``out`` holds ``last.ckpt`` and ``best.ckpt`` (the highest validation top-1), and the logs
    ``logs/version_k/metrics.csv`` and ``tensorboard/version_k``, one ``k`` per start. A run that ends early for
    whatever reason resumes from ``last.ckpt`` with the epoch that it did not finish, and goes on to compute what it
    would have computed. It is written before the first epoch already.

    Args:
        module: What to train.
        train: Batches to train on; Lightning calls ``sampler.set_epoch`` where there is one.
        val: Batches to validate on after each epoch.
        out: Folder of the run; it exists.
        device: Where to compute.
        resume: Continue from ``last.ckpt``, which exists.
        verbose: Print a line per epoch. In a terminal, a progress bar is shown besides.

    Returns:
        For each epoch ``epoch`` (from 1), ``train_loss`` (of classification), ``val_loss``, ``val_top1`` (a
        fraction), ``lr`` (at its end) and ``seconds``, with an equivariance term ``train_equivariance`` (without its
        weight); those before a resumption included.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        ValueError: The loss is not finite, or ``last.ckpt`` is damaged.
    """
    history = _History(out / LAST, verbose=verbose)
    # At the end of the training epoch rather than of its validation: only then is the epoch complete in the file.
    each_epoch = partial(ModelCheckpoint, out, save_on_train_epoch_end=True, enable_version_counter=False)
    best = each_epoch(filename="best", monitor="val/top1", mode="max")
    last = each_epoch(filename=Path(LAST).stem)
    with _quiet():
        trainer = _trainer(
            module.recipe,
            device,
            max_epochs=module.recipe.epochs,
            accumulate_grad_batches=module.recipe.accumulate,
            gradient_clip_val=module.recipe.clip_grad or None,
            callbacks=[history, best, last],
            logger=[CSVLogger(out, name="logs"), TensorBoardLogger(out, name="tensorboard")],
            default_root_dir=out,
        )
        with _keyboard_interrupt():
            trainer.fit(module, train, val, ckpt_path=out / LAST if resume else None, weights_only=True)
    return history.epochs


def predict(module: Classifier, loader: DataLoader[Any], *, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits ``(images, num_classes)`` of the network for all of ``loader``, and the labels ``(images,)``.

    Computed in the precision of the module's recipe and returned in float32 on the CPU, in the order of ``loader``.
    """
    with _quiet(), _keyboard_interrupt():
        # Not trainer.predict: that one rebuilds the loader with a sampler of its own.
        _trainer(module.recipe, device, logger=False, enable_checkpointing=False).test(module, loader, verbose=False)
    logits, labels = zip(*module.tested, strict=True)
    return torch.cat(logits), torch.cat(labels)


def _trainer(recipe: Recipe, device: torch.device, *, callbacks: Sequence[Callback] = (), **kwargs: Any) -> pl.Trainer:
    interactive = sys.stdout.isatty()
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1,
        precision=recipe.precision,
        callbacks=[*callbacks, *([_ProgressBar()] if interactive else [])],
        enable_progress_bar=interactive,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[_WholeFiles()],
        **kwargs,
    )


class _WholeFiles(TorchCheckpointIO):
    """Writes checkpoints beside their place first; Lightning's way goes through /tmp, which may be another disk.

    What it reads must be whole as well.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(Path(path), buffer.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            checkpoint = super().load_checkpoint(path, *args, **kwargs)
            if "loops" not in checkpoint:
                raise KeyError("loops")
        except Exception as error:  # on damaged bytes the unpickler raises nearly anything
            raise ValueError(f"{path} is damaged, or not of a run; delete it, or give another `out`") from error
        return checkpoint


class _History(Callback):
    """Keeps and prints the figures of each epoch, and sees to it that there is a checkpoint from the start."""

    def __init__(self, last: Path, *, verbose: bool) -> None:
        self.epochs: list[dict[str, float]] = []
        self._last = last
        self._verbose = verbose
        self._start = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            trainer.save_checkpoint(self._last)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": metrics["train/loss"],
            "val_loss": metrics["val/loss"],
            "val_top1": metrics["val/top1"],
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "seconds": time.perf_counter() - self._start,
        }
        equivariance = ""
        if "train/equivariance" in metrics:
            row["train_equivariance"] = metrics["train/equivariance"]
            equivariance = f"equivariance {row['train_equivariance']:.4f}  "
        self.epochs.append(row)
        pl_module.log("lr", row["lr"])
        if self._verbose:
            pl_module.print(
                f"epoch {row['epoch']:>3}/{trainer.max_epochs}  train loss {row['train_loss']:.4f}  "
                f"{equivariance}val loss {row['val_loss']:.4f}  val top-1 {row['val_top1']:6.2%}  lr {row['lr']:.2e}  "
                f"{row['seconds']:.1f} s"
            )


class _ProgressBar(TQDMProgressBar):
    """Lightning's bar, gone when it is done, counting epochs from 1, without the number of the log folder."""

    def init_train_tqdm(self) -> Any:
        bar = super().init_train_tqdm()
        bar.leave = False
        return bar

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def init_test_tqdm(self) -> Any:
        bar = super().init_test_tqdm()
        bar.leave = False
        return bar

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning tells its own users: tips, devices, numbers of workers. Errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _keyboard_interrupt() -> Iterator[None]:
    """Let Ctrl-C be a `KeyboardInterrupt` again, where Lightning exits with 1 and leaves further Ctrl-C ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error
