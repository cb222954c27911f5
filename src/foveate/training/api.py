"""`foveate.train`: training from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveate.data import ImageData, LoaderData
from foveate.data.transforms import Augment
from foveate.tasks import Task, register_task
from foveate.training.build import Data
from foveate.training.loggers import check_loggers
from foveate.training.run import train_network
from foveate.training.settings import TrainConfig, from_keywords

__all__ = ["TrainResult", "train"]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        folder: Folder of the run; ``foveate.load(result.folder)`` is the trained network.
        content: What its ``result.json`` holds; empty in processes other than the main one.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """Figures on the test images, or the validation images if there are no test images."""
        return self.content["metrics"]

    @property
    def history(self) -> list[dict[str, float]]:
        """A row per epoch."""
        return self.content["history"]


def train(
    model: str | TrainConfig,
    data: str | Path | Data | None = None,
    *,
    task: str | type[Task] = "classification",
    logger: Sequence[str | Any] = ("csv", "tensorboard"),
    callbacks: Sequence[Any] = (),
    augment: Augment | None = None,
    verbose: bool = True,
    **settings: Any,
) -> TrainResult:
    """Train a network, evaluate it, and leave a folder that `foveate.load` reads; what ``foveate train`` does.

        result = foveate.train("gsa_resnet26", "photographs", epochs=30, out="runs/mine")
        foveate.load(result.folder).predict("photo.jpg")

    The folder holds ``config.yaml`` (the settings, to be used again with ``--config``), ``last.ckpt``,
    ``previous.ckpt`` and ``best.ckpt`` (see `fit`), what the loggers write, ``model.safetensors`` (the final weights)
    and ``result.json``. All settings are checked before the folder is created. Ctrl-C and SIGTERM leave a run that
    ``resume=True`` continues. Under torchrun, each process calls this and does its share.

    Args:
        model: Name of a network that timm knows, or all settings as a `TrainConfig`.
        data: A folder or the name of a data set (see `foveate.data.open_data`), what that returns, or data loaders:
            what `foveate.data.from_loaders` returns. Default: the setting ``data``, which is the digits.
        task: What is learned: a name, or a subclass of `foveate.tasks.Task`.
        logger: Where the figures of each epoch go: names (``csv``, ``tensorboard``, ``wandb``, ``mlflow``), loggers of
            Lightning's, or `EpochLogger` objects.
        callbacks: Objects with hooks of Lightning's, see `fit`.
        augment: Replaces the random part of the augmentation in training: a callable that turns an RGB image of
            Pillow's into another one, or into the normalized tensor.
        verbose: Print a line per epoch and the result.
        settings: Any other field of `TrainConfig`, such as ``epochs``, ``lr``, ``out`` and ``seed``.

    Raises:
        ValueError: A setting is wrong, or a loss, the gradient or a weight became infinite or NaN.
        MissingExtraError: The package of a logger is not installed.
        OSError: A file cannot be written, or another process of the run has ended.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    if isinstance(model, TrainConfig):
        if settings:
            raise ValueError(f"give settings in the TrainConfig; got {', '.join(settings)} beside it")
        config, objects = model, list[Any]()
    else:
        names, objects = split_loggers(logger)
        name = task if isinstance(task, str) else register_task(task).name
        config = from_keywords(TrainConfig, {"model": model, "task": name, "logger": names, **settings})
    if isinstance(data, str | Path):
        config, data = dataclasses.replace(config, data=str(data)), None
    elif data is not None:
        if not isinstance(data, ImageData | LoaderData):
            raise ValueError(
                "data must be a folder, a name, an ImageData, or loaders as foveate.data.from_loaders(train, val, "
                f"mean=…, std=…) returns them; got {type(data).__name__}"
            )
        config = dataclasses.replace(config, data=data.name)
    content = train_network(config, data=data, verbose=verbose, callbacks=callbacks, loggers=objects, augment=augment)
    return TrainResult(config.folder, content)


def split_loggers(wanted: Sequence[str | Any]) -> tuple[list[str], list[Any]]:
    """Return those of the loggers that are names, and the objects; raise a `ValueError` for what is neither."""
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    check_loggers(wanted)
    return [one for one in wanted if isinstance(one, str)], [one for one in wanted if not isinstance(one, str)]
