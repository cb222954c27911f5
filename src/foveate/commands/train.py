"""``foveate train``: one network, on one set of images."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate import _checks
from foveate._networks import build_network, check_classifier
from foveate.commands.protocol import Protocol, check_unchanged, environment, read_settings, to_yaml
from foveate.data import ImageData, ImageLoader, make_loader, make_mixup
from foveate.training import (
    Classifier,
    NetworkMeta,
    check_device,
    check_gates,
    evaluate,
    fit,
    load_weights,
    predict,
    save_network,
)
from foveate.training.checkpoint import WEIGHTS
from foveate.training.files import read_json, writable_folder, write_json, write_text
from foveate.training.trainer import LAST

__all__ = ["CONFIG", "RESULT", "TrainConfig", "build", "loaders", "run"]

CONFIG, RESULT = "config.yaml", "result.json"


@dataclass(kw_only=True)
class TrainConfig(Protocol):
    """Train a network and test it.

    Attributes:
        model: Name of the network, any that timm knows; `foveate models` lists ours.
        out: Folder of the run. Not given: runs/MODEL-seed-SEED.
        seed: Of the initial weights, the order of the images and their augmentation.
        resume: Continue an interrupted run in `out` with the epoch that it did not finish.
        checkpoint: File with weights of the same network to start from; another number of classes is no hindrance.
    """

    model: str = ""
    out: str | None = None
    seed: int = 0
    resume: bool = False
    checkpoint: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.out or f"runs/{self.model}-seed-{self.seed}")

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.model:
            raise ValueError("no network given; name one, as in `foveate train gsa_resnet26`")
        super().check()
        _checks.integer("seed", self.seed, minimum=0)


def run(config: TrainConfig, *, data: ImageData | None = None, verbose: bool = True) -> dict[str, Any]:
    """Train a network, test it, and leave what came out in the folder of the run.

    - ``config.yaml``: the settings, to be used again with ``--config``;
    - ``last.ckpt`` and ``best.ckpt``, after each epoch, the logs ``logs/`` and ``tensorboard/``;
    - ``model.safetensors``: the final weights, those that were tested;
    - ``result.json``: the figures.

    Everything is checked before the folder is created. Ctrl-C leaves a run that ``resume`` continues.

    Args:
        config: What to do.
        data: What ``config.open()`` gives, if it was called already.
        verbose: Print a line per epoch and the result.

    Returns:
        What ``result.json`` holds: ``metrics`` on the ``split`` tested (the validation images where there are no test
        images), ``correct`` (0 or 1 per image, in order), ``history`` (a row per epoch), ``config``,
        ``environment`` and more.

    Raises:
        ValueError: A setting is wrong, or the loss became infinite or NaN.
        KeyboardInterrupt: Ctrl-C.
    """
    config.check()
    device = check_device(config.device, config.precision)
    _check_folder(config)
    data = data or config.open()
    model, meta = build(config, data)
    train, val, test = loaders(config, data)
    mixing = {"mixup": config.mixup, "cutmix": config.cutmix, "label_smoothing": config.label_smoothing}
    module = Classifier(
        model,
        config,
        num_classes=data.num_classes,
        mixing=make_mixup(data.num_classes, seed=config.seed, **mixing),
        meta=meta,
        seed=config.seed,
    )

    out = writable_folder(config.folder)
    write_text(out / CONFIG, to_yaml(dataclasses.replace(config, resume=False)))
    try:
        history = fit(module, train, val, out=out, device=device, resume=config.resume, verbose=verbose)
        evaluation = evaluate(*predict(module, val if test is None else test, device=device))
    except KeyboardInterrupt as error:
        again = shlex.join(["foveate", "train", "--config", str(out / CONFIG), "--resume"])
        raise KeyboardInterrupt(f"go on with: {again}") from error
    save_network(out / WEIGHTS, module.network, meta)
    metrics = dataclasses.asdict(evaluation)
    correct = metrics.pop("correct")
    bad_images = {bad for loader in (train, val, test) if loader is not None for bad in loader.bad_images}
    write_json(
        out / RESULT,
        {
            "model": config.model,
            "seed": config.seed,
            "split": "val" if test is None else "test",
            "images": len(correct),
            "metrics": metrics,
            "correct": correct,
            "history": history,
            "seconds": sum(row["seconds"] for row in history),
            "bad_images": sorted(map(str, bad_images)),
            "network": dataclasses.asdict(meta),
            "config": dataclasses.asdict(config),
            "environment": environment(device),
        },
    )
    if verbose:
        split = "test images" if test is not None else "validation images (there are no test images)"
        print(f"top-1 {evaluation.top1:.2%} on {len(correct)} {split}; the run is in {out}")
    return read_json(out / RESULT)


def loaders(config: TrainConfig, data: ImageData) -> tuple[ImageLoader, ImageLoader, ImageLoader | None]:
    """Return the batches to train on, to validate on, and, if there are such images, to test on.

    Raises:
        ValueError: There are too few images for a batch.
    """
    loader = partial(
        make_loader,
        transform=data.transform,
        batch_size=config.batch_size,
        workers=config.workers,
        seed=config.seed,
        max_bad_images=data.max_bad_images,
    )
    test = None if data.test is None else loader(data.test, training=False)
    return loader(data.train, training=True), loader(data.val, training=False), test


def build(config: TrainConfig, data: ImageData) -> tuple[nn.Module, NetworkMeta]:
    """Build the network for ``data`` with the weights that training starts from, as the seed has it.

    Raises:
        ValueError: There is no such network, it does not take the images or the keywords, its outputs are not the
            classes, it has no gate to be made equivariant, or the weights to start from are those of another one.
    """
    torch.manual_seed(config.seed)
    model, kwargs = build_network(
        config.model,
        num_classes=data.num_classes,
        img_size=data.image_size,
        pretrained=config.pretrained,
        model_args=config.model_args,
    )
    check_classifier(config.model, model, num_classes=data.num_classes, img_size=data.image_size)
    if config.equivariance:
        check_gates(model)
    if config.checkpoint is not None:
        load_weights(model, config.checkpoint)
    transform = data.transform
    meta = NetworkMeta(
        model=config.model,
        kwargs=kwargs,
        classes=data.classes,
        img_size=data.image_size,
        mean=data.mean,
        std=data.std,
        crop_pct=transform.crop_pct,
        interpolation=transform.interpolation,
    )
    return model, meta


def _check_folder(config: TrainConfig) -> None:
    """Refuse to write over a run or a file of somebody's, and to resume a run that is not there, finished, or other."""
    out, another = config.folder, "give another `out`"
    if (out / RESULT).exists():
        raise ValueError(f"{out} holds a finished run; {another}, or delete it")
    if not config.resume:
        if (out / LAST).exists():
            raise ValueError(f"{out} holds an unfinished run; continue it with `--resume`, or {another}")
        read_settings(out / CONFIG, config)
        return
    if not (out / LAST).exists():
        raise ValueError(f"there is nothing to resume in {out}: it has no {LAST}; leave out `resume`, or {another}")
    check_unchanged(out / CONFIG, config)
