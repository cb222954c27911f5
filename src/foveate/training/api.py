"""`foveate.train`: training from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from foveate.data import ImageData, LoaderData
from foveate.data.dense import DenseData
from foveate.data.transforms import Augment
from foveate.tasks import Task, register_task
from foveate.training.build import Data
from foveate.training.loggers import check_loggers
from foveate.training.run import train_network
from foveate.training.settings import OF_OPENING, RANDOM, TrainConfig, check_keywords

Config = TypeVar("Config")

__all__ = ["TrainResult", "configured", "train"]


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
    task: str | type[Task] | None = None,
    logger: Sequence[str | Any] | None = None,
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
        model: Name of a network that timm knows, or all settings as a `TrainConfig`, which the other arguments change.
        data: A folder or the name of a data set (see `foveate.data.open_data`), what that returns, or data loaders:
            what `foveate.data.from_loaders` returns. Of opened data, the settings that are kept have the name alone.
            Default: the setting ``data``, which is the digits.
        task: What is learned: a name, or a subclass of `foveate.tasks.Task`. Default: classification.
        logger: Where the figures of each epoch go: names (``csv``, ``tensorboard``, ``wandb``, ``mlflow``), loggers of
            Lightning's, or `EpochLogger` objects. Default: ``csv`` and ``tensorboard``.
        callbacks: Objects with hooks of Lightning's, see `fit`.
        augment: Replaces the random part of the augmentation in training: a callable that turns an RGB image of
            Pillow's into another one, or into the normalized tensor; with masks or boxes, an image and its target into
            both of these.
        verbose: Print a line per epoch and the result.
        settings: Any other field of `TrainConfig`, such as ``epochs``, ``lr``, ``out`` and ``seed``.

    Raises:
        ValueError: A setting is wrong, or a loss, the gradient or a weight became infinite or NaN.
        MissingExtraError: The package of a logger is not installed.
        OSError: A file cannot be written, or another process of the run has ended.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    names, objects = _split_loggers([] if logger is None else logger)
    callbacks = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    if logger is not None:
        settings["logger"] = names
    for name in RANDOM if augment is not None else ():
        if name in settings or _set_in(model, name):
            raise ValueError(f"{name} has no effect beside augment, which takes the place of all that is random")
    config, opened = configured(TrainConfig, "model", model, data, task, settings)
    content = train_network(config, data=opened, verbose=verbose, callbacks=callbacks, loggers=objects, augment=augment)
    return TrainResult(config.folder, content)


def configured(
    config_class: type[Config],
    subject: str,
    given: Any,
    data: str | Path | Data | None,
    task: str | type[Task] | None,
    settings: Mapping[str, Any],
) -> tuple[Config, Data | None]:
    """Return the configuration that `train` and its like are called with, and the data if they were opened already.

    Args:
        config_class: Class of the configuration.
        subject: Its field that is the first argument.
        given: The first argument: the value of that field, or a configuration, which ``settings`` then change.
        data: A folder or a name, or opened data.
        task: A name, or a subclass of `Task`.
        settings: Other fields.

    Raises:
        ValueError: A field is unknown, or ``data`` or ``task`` is of another kind.
    """
    changes = dict(settings)
    if task is not None:
        changes["task"] = task if isinstance(task, str) else register_task(task).name
    opened = None
    if isinstance(data, str | Path):
        changes["data"] = data
    elif isinstance(data, ImageData | DenseData | LoaderData):
        changes["data"], opened = data.name, data
    elif data is not None:
        raise ValueError(
            "data must be a folder, a name, an ImageData or DenseData, or loaders as foveate.data.from_loaders(train, "
            f"val, mean=…, std=…) returns them; got {type(data).__name__}"
        )
    check_keywords(config_class, changes)
    if opened is not None:
        names = (*OF_OPENING, "workers", "batch_size", "jobs")
        given_there = {name: getattr(given, name) for name in names if _set_in(given, name)}
        _check_means_something(given_there | dict(settings), opened, comparing=subject == "models")
    if not isinstance(given, config_class | str | list):
        raise ValueError(
            f"{subject} must be the name of a network, or a {config_class.__name__}; got a {type(given).__name__}. "
            "A network of your own gets a name by timm.models.register_model"
        )
    if isinstance(given, config_class):
        return dataclasses.replace(given, **changes), opened  # type: ignore[type-var]  # all are dataclasses
    return config_class(**{subject: given, **changes}), opened


def _set_in(config: Any, name: str) -> bool:
    """Tell whether a configuration has a setting that is not the default."""
    fields = {field.name: field for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else {}
    if name not in fields:
        return False
    default, factory = fields[name].default, fields[name].default_factory
    return getattr(config, name) != (default if factory is dataclasses.MISSING else factory())


def _check_means_something(settings: Mapping[str, Any], data: Data, *, comparing: bool) -> None:
    """Raise a `ValueError` if a setting is about how images are opened and augmented, and they are opened already."""
    means_nothing = set(OF_OPENING)
    if isinstance(data, LoaderData):
        means_nothing.add("workers")
        own = getattr(data.train, "batch_size", None)
        known = own is not None and not comparing  # in a comparison costs are measured with that of the settings
        if known and settings.get("batch_size", own) != own:
            raise ValueError(f"batch_size={settings['batch_size']} has no effect: the batches of the loader have {own}")
    if comparing and (settings.get("jobs") or 1) > 1:
        raise ValueError("jobs has no effect on data that are opened already, which no other process has; leave it out")
    for name in settings:
        if name in means_nothing:
            raise ValueError(
                f"{name} has no effect on data that are opened already; set it where they are: "
                + ("in your loaders" if isinstance(data, LoaderData) else "open_data, or data.transform.replace(…)")
            )


def _split_loggers(wanted: Sequence[str | Any]) -> tuple[list[str], list[Any]]:
    """Return those of the loggers that are names, and the objects; raise a `ValueError` for what is neither."""
    wanted = list(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
    check_loggers(wanted)
    return [one for one in wanted if isinstance(one, str)], [one for one in wanted if not isinstance(one, str)]
