"""A training from its settings to the folder that it leaves."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from foveate._devices import check_device
from foveate._imports import known_to_all
from foveate._memory import freed_memory_kept
from foveate._signals import Interrupted
from foveate.data import LoaderData
from foveate.data.files import name_below
from foveate.data.transforms import Augment
from foveate.io import NetworkMeta, save_network
from foveate.io.card import meta_of
from foveate.io.checkpoint import META_KEY, WEIGHTS, rehearse_saving
from foveate.io.environment import environment
from foveate.io.files import read_json, sole_writer, writable_folder, write_json, write_text
from foveate.models.missing_kernels import warn_of_missing_kernels
from foveate.tasks import find_task
from foveate.training.build import (
    Data,
    build,
    configured_task,
    fingerprint_of,
    is_known_to_all,
    normalized,
    with_appearance,
)
from foveate.training.distributed import Distributed, process_group
from foveate.training.loggers import EpochLogger, make_loggers
from foveate.training.module import TrainingModule
from foveate.training.run_folder import RESULT, begun_by_this_job, is_to_be_resumed, resume_command
from foveate.training.settings import TrainConfig
from foveate.training.settings_file import CONFIG, check_unchanged, to_yaml
from foveate.training.sharding import check_sharding
from foveate.training.train_state import PREVIOUS, read_checkpoint
from foveate.training.trainer import fit, limited_threads, predict

__all__ = ["train_network"]


def train_network(
    config: TrainConfig,
    *,
    data: Data | None = None,
    verbose: bool = True,
    callbacks: Sequence[Any] = (),
    loggers: Sequence[EpochLogger | Any] = (),
    augment: Augment | None = None,
) -> dict[str, Any]:
    """Train by a configuration; the part of `train` below its conveniences.

    Args:
        config: All settings.
        data: What ``config.open()`` returns, if it was called already.
        verbose: Print a line per epoch and the result.
        callbacks: Objects with hooks of Lightning's, see `fit`.
        loggers: Loggers besides those that the settings name.
        augment: See `train`.

    Returns:
        What ``result.json`` holds: ``metrics`` on the ``split`` tested (the validation images where there are no test
        images), a score per image in order (classification: ``correct``, 0 or 1), ``history`` (a row per epoch),
        ``config``, ``environment`` and more. In processes other than the main one, nothing.

    Raises:
        ValueError: A setting is wrong, or a loss, the gradient or a weight became infinite or NaN.
        OSError: A file cannot be written, or another process of the run has ended.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    config.check()
    device = check_device(config.device, config.precision)
    with ExitStack() as held, limited_threads(config.threads), process_group(config.strategy, device) as distributed:
        if device.type == "cpu":
            held.enter_context(freed_memory_kept())
        run = _Run(config, device, distributed, verbose=verbose and distributed.is_main_process)
        return run(data, held, callbacks=callbacks, loggers=loggers, augment=augment)


class _Run:
    """One process's part of a training."""

    def __init__(self, config: TrainConfig, device: torch.device, distributed: Distributed, *, verbose: bool) -> None:
        self.config, self.device, self.distributed, self.verbose = config, device, distributed, verbose
        self.out = config.folder
        self.restarted = distributed.max(distributed.restarts)[0] > 0

    def __call__(
        self,
        data: Data | None,
        held: ExitStack,
        *,
        callbacks: Sequence[Any],
        loggers: Sequence[Any],
        augment: Augment | None,
    ) -> dict[str, Any]:
        config, distributed, main = self.config, self.distributed, self.distributed.is_main_process
        if self.restarted and distributed.max(main and (self.out / RESULT).exists() and begun_by_this_job(self.out))[0]:
            check_unchanged(self.out / CONFIG, config)
            return read_json(self.out / RESULT) if main else {}  # a process failed, but after the run
        resume = bool(distributed.max(main and self._is_to_be_resumed())[0])
        # Whether the settings alone say what to go on with.
        named = data is None and augment is None and not callbacks and not loggers
        named = named and is_known_to_all(config.model) and known_to_all(find_task(config.task).__module__)
        with distributed.local_main_process_first():
            if data is None:
                data = config.open()
                if not resume:
                    config.check_augmentation(data.transform)
            model, meta = self._resumed(data) if resume else build(config, data)
        data = normalized(data, meta)
        meta = with_appearance(meta, data)
        if augment is not None:
            if isinstance(data, LoaderData):
                raise ValueError("augment is for images of a folder or a data set; augment those of loaders in them")
            data = dataclasses.replace(data, augment=augment)  # type: ignore[arg-type]
        seed = distributed.seed(config.seed)
        task = configured_task(config, data, seed=seed)
        train, val, test = data.loaders(
            batch_size=config.batch_size,
            workers=config.workers,
            seed=config.seed,
            rank=distributed.rank,
            world_size=distributed.size,
            samples=task.samples,
            pin_memory=self.device.type == "cuda",
        )
        network = convert_sync_batchnorm(model) if config.sync_bn else model
        module = TrainingModule(network, config, task, meta=meta, seed=seed)
        fingerprint = fingerprint_of(data)
        if distributed.sharded:
            check_sharding(config)
        if distributed.size > 1 and config.opt.startswith("kron"):
            raise ValueError(
                f"opt={config.opt} draws random numbers in its steps, in each process others; use one process"
            )
        if main:
            self._prepare_folder(module, fingerprint, resume, held)
        try:
            history = fit(
                module,
                train,
                val,
                out=self.out,
                device=self.device,
                resume=resume,
                verbose=self.verbose,
                checkpoint_minutes=config.checkpoint_minutes,
                checkpoint_updates=config.checkpoint_updates,
                distributed=distributed,
                data=fingerprint,
                loggers=make_loggers([*config.logger, *loggers], self.out, dataclasses.asdict(config)) if main else (),
                callbacks=callbacks,
            )
            tested = val if test is None else test
            outputs = predict(module, tested, device=self.device, distributed=distributed)
        except KeyboardInterrupt as error:
            signum = getattr(error, "signum", signal.SIGINT)
            if not main:
                sys.exit(128 + signum)
            if named:
                raise Interrupted(signum, f"go on with: {resume_command(self.out, distributed)}") from error
            raise Interrupted(signum, "go on by the same call, with resume=True") from error
        if not len(outputs[0]):
            raise ValueError("there is no test image that can be read")
        found = {str(bad) for loader in (train, val, test) if loader is not None for bad in _bad_images(loader)}
        bad_images = sorted(set(distributed.gather_texts(sorted(found))))
        images = data.val if data.test is None else data.test
        root = getattr(images, "root", getattr(images, "folder", ""))
        found = {name_below(getattr(bad, "path", str(bad)), root) for bad in getattr(tested, "bad_in_pass", ())}
        bad_tested = sorted(set(distributed.gather_texts(sorted(found))))
        if not main:
            return {}
        save_network(self.out / WEIGHTS, module.network, meta)
        metrics = dataclasses.asdict(task.evaluate(*outputs))
        split = "val" if test is None else "test"
        bad = {"bad_images": bad_images, "bad_tested": bad_tested}
        return self._write_result(module, metrics, history, bad, split=split, data=fingerprint.state())

    def _resumed(self, data: Data) -> tuple[nn.Module, NetworkMeta]:
        """Build the network of an interrupted run: its checkpoint has the weights, and how they know images.

        What it was begun from may be gone.
        """
        model, meta = build(dataclasses.replace(self.config, checkpoint=None, pretrained=False), data)
        saved = read_checkpoint(self.out)[0].get(META_KEY)
        if saved is not None:
            then = meta_of(json.loads(saved))
            meta = dataclasses.replace(meta, mean=tuple(then.mean), std=tuple(then.std))
        return model, meta

    def _is_to_be_resumed(self) -> bool:
        return is_to_be_resumed(self.config, self.distributed.launched, self.restarted)

    def _prepare_folder(self, module: TrainingModule, fingerprint: Any, resume: bool, held: ExitStack) -> None:
        config, out = self.config, self.out
        held.enter_context(sole_writer(writable_folder(out)))
        if not resume and self._is_to_be_resumed():
            raise ValueError(f"{out} was begun by another process meanwhile; give another `out`")
        if not resume:
            fingerprint.write(out)
        write_text(out / CONFIG, to_yaml(dataclasses.replace(config, resume=False)))
        warn_of_missing_kernels(self.device, module)
        assert module.meta is not None
        rehearse_saving(out / WEIGHTS, module.network, module.meta)
        if self.verbose and config.resume and not resume:
            print(f"there is no checkpoint in {out} yet; the run begins")

    def _write_result(
        self,
        module: TrainingModule,
        metrics: dict[str, Any],
        history: list[dict[str, float]],
        bad: dict[str, list[str]],
        *,
        split: str,
        data: dict[str, Any],
    ) -> dict[str, Any]:
        config, out, task, size = self.config, self.out, module.task, self.distributed.size
        scores = metrics.pop(task.per_image)
        assert module.meta is not None
        write_json(
            out / RESULT,
            {
                "model": config.model,
                "seed": config.seed,
                "split": split,
                "images": len(scores),
                "metrics": metrics,
                task.per_image: scores,
                "history": history,
                "threads": torch.get_num_threads(),
                "seconds": sum(row["seconds"] for row in history),
                **bad,
                "data": data,
                "network": dataclasses.asdict(module.meta),
                "config": dataclasses.asdict(config),
                "environment": environment(self.device) | ({"processes": size} if size > 1 else {}),
            },
        )
        (out / PREVIOUS).unlink(missing_ok=True)
        if self.verbose:
            images = "test images" if split == "test" else "validation images (there are no test images)"
            print(f"{task.verdict(metrics)} on {len(scores)} {images}; the run is in {out}")
        return read_json(out / RESULT)


def _bad_images(loader: Any) -> Sequence[Any]:
    return getattr(loader, "bad_images", ())
