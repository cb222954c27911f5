"""``foveate train``: one network, on one set of images."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from foveate import _checks
from foveate._signals import Interrupted
from foveate.commands._versions import warn_of_missing_kernels
from foveate.commands.protocol import Protocol, check_unchanged, environment, read_settings, to_yaml
from foveate.data import ImageData, ImageLoader, make_loader, make_mixup
from foveate.data.appearance import appearance_of
from foveate.io import NetworkMeta, load_weights, save_network
from foveate.io.checkpoint import WEIGHTS, rehearse_saving
from foveate.io.files import read_json, sole_writer, writable_folder, write_json, write_text
from foveate.models.building import build_network, check_classifier
from foveate.training import (
    Classifier,
    DataFingerprint,
    Strategy,
    Team,
    check_device,
    check_gates,
    evaluate,
    fit,
    joined,
    limited_threads,
    predict,
)
from foveate.training.progress import LAST, PREVIOUS, find_checkpoint
from foveate.training.team import ALONE

__all__ = ["CONFIG", "RESULT", "TrainConfig", "build", "loaders", "run"]

CONFIG, RESULT = "config.yaml", "result.json"


@dataclass(kw_only=True)
class TrainConfig(Protocol):
    """Train a network and test it.

    Attributes:
        model: Name of the network, any that timm knows; `foveate models` lists ours.
        out: Folder of the run. Not given: runs/MODEL-seed-SEED.
        seed: Of the initial weights, the order of the images and their augmentation.
        resume: Continue an interrupted run in `out` where its last checkpoint left it.
        checkpoint: File with weights of the same network to start from, timm's too; another number of classes or
            image size is no hindrance.
        strategy: How the processes that torchrun starts share the work: ddp (each holds the whole network), fsdp
            (each holds a part), or auto, which is ddp.
        sync_bn: Let batch normalisation use the images of all processes. On GPUs only.
    """

    model: str = ""
    out: str | None = None
    seed: int = 0
    resume: bool = False
    checkpoint: str | None = None
    strategy: Strategy = "auto"
    sync_bn: bool = False

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
        if self.sync_bn and check_device(self.device, self.precision).type != "cuda":
            raise ValueError("sync_bn needs GPUs, as PyTorch's SyncBatchNorm does; leave it out on the CPU")


def run(
    config: TrainConfig, *, data: ImageData | None = None, verbose: bool = True, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Train a network, test it, and leave what came out in the folder of the run.

    - ``config.yaml``: the settings, to be used again with ``--config``;
    - ``last.ckpt``, ``previous.ckpt`` and ``best.ckpt``, the logs ``logs/`` and ``tensorboard/``: see `fit`;
    - ``model.safetensors``: the final weights, those that were tested;
    - ``result.json``: the figures.

    Everything is checked before the folder is created. Ctrl-C and SIGTERM leave a run that ``resume`` continues.

    Under torchrun, each of its processes calls this and does its share; one of them writes and prints. A run that
    torchrun starts again, and with ``resume`` any, goes on from its last checkpoint, or begins if it has none yet.

    Args:
        config: What to do.
        data: What ``config.open()`` gives, if it was called already.
        verbose: Print a line per epoch and the result.
        callbacks: Objects with hooks of Lightning's, see `fit`.

    Returns:
        What ``result.json`` holds: ``metrics`` on the ``split`` tested (the validation images where there are no test
        images), ``correct`` (0 or 1 per image, in order), ``history`` (a row per epoch), ``config``,
        ``environment`` and more. In processes that do not write, nothing.

    Raises:
        ValueError: A setting is wrong, or a loss, the gradient or a weight became infinite or NaN.
        OSError: A file cannot be written, or another process of the run has ended.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    config.check()
    device = check_device(config.device, config.precision)
    with ExitStack() as held, limited_threads(config.threads), joined(config.strategy, device) as team:
        return _run(config, data, device, team, held, verbose=verbose and team.leads, callbacks=callbacks)


def _run(
    config: TrainConfig,
    data: ImageData | None,
    device: torch.device,
    team: Team,
    held: ExitStack,
    *,
    verbose: bool,
    callbacks: Sequence[Any],
) -> dict[str, Any]:
    restarted = team.max(team.restarts)[0] > 0
    if (
        restarted and team.max(team.leads and (config.folder / RESULT).exists())[0]
    ):  # one ended badly, but after the run
        return read_json(config.folder / RESULT) if team.leads else {}
    resume = bool(team.max(team.leads and _to_be_resumed(config, team.launched, restarted))[0])
    with team.first_here_first():
        data = data or config.open()
        model, meta = build(config, data)
    meta = dataclasses.replace(meta, appearance=appearance_of(data))
    train, val, test = loaders(config, data, team)
    mixing = {"mixup": config.mixup, "cutmix": config.cutmix, "label_smoothing": config.label_smoothing}
    seed = team.seed(config.seed)
    module = Classifier(
        convert_sync_batchnorm(model) if config.sync_bn else model,
        config,
        num_classes=data.num_classes,
        mixing=make_mixup(data.num_classes, seed=seed, **mixing),
        meta=meta,
        seed=seed,
    )

    out = config.folder
    names = [name for name in ("train", "val", "test") if getattr(data, name) is not None]
    fingerprint = DataFingerprint(
        data.classes,
        {name: len(data.split(name)) for name in names},
        {name: partial(data.entries, name) for name in names},
    )
    if team.leads:
        held.enter_context(sole_writer(writable_folder(out)))
        if not resume and _to_be_resumed(config, team.launched, restarted):
            raise ValueError(f"{out} was begun by another process meanwhile; give another `out`")
        if not resume:
            fingerprint.write(out)
        write_text(out / CONFIG, to_yaml(dataclasses.replace(config, resume=False)))
        warn_of_missing_kernels(device, module)
        rehearse_saving(out / WEIGHTS, module.network, meta)
        if verbose and config.resume and not resume:
            print(f"there is no checkpoint in {out} yet; the run begins")
    try:
        history = fit(
            module,
            train,
            val,
            out=out,
            device=device,
            resume=resume,
            verbose=verbose,
            checkpoint_minutes=config.checkpoint_minutes,
            checkpoint_updates=config.checkpoint_updates,
            team=team,
            data=fingerprint,
            callbacks=callbacks,
        )
        evaluation = evaluate(*predict(module, val if test is None else test, device=device, team=team))
    except KeyboardInterrupt as error:
        signum = getattr(error, "signum", signal.SIGINT)
        if not team.leads:
            sys.exit(128 + signum)
        raise Interrupted(signum, f"go on with: {_command_to_resume(out, team)}") from error
    bad_images = {str(bad) for loader in (train, val, test) if loader is not None for bad in loader.bad_images}
    bad_images = set(team.gather_texts(sorted(bad_images)))
    if not team.leads:
        return {}
    save_network(out / WEIGHTS, module.network, meta)
    metrics = dataclasses.asdict(evaluation)
    correct = metrics.pop("correct")
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
            "threads": torch.get_num_threads(),
            "seconds": sum(row["seconds"] for row in history),
            "bad_images": sorted(bad_images),
            "network": dataclasses.asdict(meta),
            "config": dataclasses.asdict(config),
            "environment": environment(device) | ({"processes": team.size} if team.size > 1 else {}),
        },
    )
    (out / PREVIOUS).unlink(missing_ok=True)
    if verbose:
        split = "test images" if test is not None else "validation images (there are no test images)"
        print(f"top-1 {evaluation.top1:.2%} on {len(correct)} {split}; the run is in {out}")
    return read_json(out / RESULT)


def loaders(
    config: TrainConfig, data: ImageData, team: Team = ALONE
) -> tuple[ImageLoader, ImageLoader, ImageLoader | None]:
    """Return this process's share of the batches to train on, to validate on, and, if there are such, to test on.

    Raises:
        ValueError: There are too few images for a batch, or the team cannot share one equally.
    """
    if config.batch_size % team.size:
        near = max(config.batch_size // team.size, 1) * team.size
        raise ValueError(
            f"batch_size={config.batch_size} is of all {team.size} processes together, which cannot share it equally; "
            f"give a multiple of {team.size}, such as {near}"
        )
    loader = partial(
        make_loader,
        transform=data.transform,
        batch_size=config.batch_size // team.size,
        workers=config.workers,
        seed=config.seed,
        rank=team.rank,
        world_size=team.size,
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


def _to_be_resumed(config: TrainConfig, launched: bool, restarted: bool) -> bool:
    """Return whether there is a checkpoint to go on from, and that is asked for, by the user or by torchrun.

    Raises:
        ValueError: A run or a file of somebody's would be written over, or the run to be resumed is not there,
            finished, or other.
    """
    out, another = config.folder, "give another `out`"
    if (out / RESULT).exists():
        raise ValueError(f"{out} holds a finished run; {another}, or delete it")
    if find_checkpoint(out) is None:
        if config.resume and not launched:
            raise ValueError(f"there is nothing to resume in {out}: it has no {LAST}; leave out `resume`, or {another}")
        read_settings(out / CONFIG, config)
        return False
    if not config.resume and not restarted:
        raise ValueError(f"{out} holds an unfinished run; continue it with `--resume`, or {another}")
    check_unchanged(out / CONFIG, config)
    return True


def _command_to_resume(out: Path, team: Team) -> str:
    processes = [f"--nnodes={team.size // team.local_size}", f"--nproc_per_node={team.local_size}"]
    launcher = ["torchrun", *processes, "-m"] if team.launched else []
    return shlex.join([*launcher, "foveate", "train", "--config", str(out / CONFIG), "--resume"])
